use aws_sdk_iam::Client;
use aws_sdk_iam::types::Group;

use super::{lasting, with_advice};
use crate::access::aws::fault;
use crate::access::change::Change;
use crate::access::seam::Fault;

pub(super) async fn carry_out(client: &Client, path: &str, name: &str, change: &Change) -> Result<(), Fault> {
    match (&change.was, &change.shall_be) {
        (None, Some(_)) => make(client, path, name).await,
        (Some(_), None) => remove(client, path, name).await,
        // A group has nothing else that could be changed.
        _ => Ok(()),
    }
}

async fn make(client: &Client, path: &str, name: &str) -> Result<(), Fault> {
    match client.create_group().path(path).group_name(name).send().await {
        Ok(_) => Ok(()),
        Err(error) if error.as_service_error().is_some_and(|e| e.is_entity_already_exists_exception()) => {
            is_there(client, path, name).await
        }
        Err(error) => Err(with_advice(fault(&error))),
    }
}

/// Made by a try whose answer was lost; or it is somebody else's.
async fn is_there(client: &Client, path: &str, name: &str) -> Result<(), Fault> {
    match find(client, name).await? {
        Some(found) if found.path() == path && found.group_name() == name => Ok(()),
        _ => Err(lasting(
            "EntityAlreadyExists",
            format!(
                "an IAM group '{name}' is there, in some case of its letters, but not under {path}; rename or delete it"
            ),
        )),
    }
}

/// IAM deletes no group that has members or policies, and nobody is taken out of one here.
async fn remove(client: &Client, path: &str, name: &str) -> Result<(), Fault> {
    // Asked for first: to delete what is not there, or elsewhere, IAM may call forbidden.
    match find(client, name).await? {
        None => return Ok(()),
        Some(found) if !found.path().starts_with(path) => {
            let message = format!("IAM group '{name}' is under {} now, not under {path}; it is left", found.path());
            return Err(lasting("NotOurs", message));
        }
        Some(_) => {}
    }
    match client.delete_group().group_name(name).send().await {
        Ok(_) => Ok(()),
        Err(error) => match error.as_service_error() {
            Some(e) if e.is_no_such_entity_exception() => Ok(()),
            Some(e) if e.is_delete_conflict_exception() => {
                let message = format!("IAM group '{name}' has members or policies and stays; take them out first");
                Err(lasting("DeleteConflict", message))
            }
            _ => Err(fault(&error)),
        },
    }
}

async fn find(client: &Client, name: &str) -> Result<Option<Group>, Fault> {
    match client.get_group().group_name(name).max_items(1).send().await {
        Err(error) if error.as_service_error().is_some_and(|e| e.is_no_such_entity_exception()) => Ok(None),
        answer => Ok(answer.map_err(|error| fault(&error))?.group),
    }
}

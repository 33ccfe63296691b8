//! `stockade doctor --print-iam`: with the policies that it prints, and none beside them, both identities do their work.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::access_scene::Scene;
use crate::access_verbs::access;
use crate::aws::Bed;
use crate::doors::{ROLE, TOKEN, yard};
use crate::yard::STOCKADE;

fn printed(file: &Path, whose: &str) -> String {
    let said = Command::new(STOCKADE)
        .args(["doctor", &format!("--print-iam={whose}"), "--config"])
        .arg(file)
        .env_clear()
        .output()
        .unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap()
}

/// In the place of the only policy that the user has had.
async fn may_only(bed: &Bed, user: &str, policy: &str, document: &str) {
    let had = bed.owner().await.list_user_policies().user_name(user).send().await.unwrap();
    assert_eq!(had.policy_names(), [policy]);
    let put = bed.owner().await.put_user_policy().user_name(user).policy_name(policy);
    put.policy_document(document).send().await.unwrap();
}

/// A key of IAM, groups of IAM, the user's role: alice is in.
#[tokio::test(flavor = "multi_thread")]
async fn a_bastion_needs_what_is_printed() {
    let bed = Bed::start();
    let plan = yard(&bed).config("access.allow_groups = ['platform-*']\n[[kube.discover]]\nregions = ['us-east-1']\n");
    let document = printed(&plan.write(), "bastion");
    may_only(&bed, "stockade-bastion", "bastion", &document).await;
    let yard = plan.start();
    std::fs::remove_file(yard.path("keys/alice")).unwrap();
    let key = bed.path("ssh_alice");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let document = yard.ssh("alice").key(key.clone()).run(&format!("{TOKEN} md {ROLE}/alice")).ok();
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["Code"], "Success", "{document}");
    assert!(yard.audit().of("SK4103W").is_empty(), "it may list clusters");

    // And without what becomes users, nobody is one: the policy was what let it.
    let less = printed(&yard.path("stockade.toml"), "bastion").replace("role/bastion/*", "role/other/*");
    may_only(&bed, "stockade-bastion", "bastion", &less).await;
    let document = yard.ssh("bob").run(&format!("{TOKEN} md {ROLE}/bob"));
    assert!(!document.text().contains("\"Success\""), "{}", document.text());
}

/// Groups, roles within the boundary, bindings: alice is given what her group says, and has it taken away again.
#[tokio::test(flavor = "multi_thread")]
async fn access_needs_what_is_printed() {
    let scene = Scene::start("mira", "");
    let document = printed(&scene.path("stockade.toml"), "access");
    may_only(&scene.bed, "stockade-access", "access", &document).await;
    let apply = |more: &[&str]| {
        let done = access(&scene, "apply", more).output().unwrap();
        assert!(
            done.status.success(),
            "{}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
    };
    apply(&[]);
    scene.join("alice", "user").await;
    apply(&[]);
    assert_eq!(scene.bound("user"), ["alice"]);
    scene.leave("alice", "user").await;
    apply(&["--allow-mass-removal"]);
    assert!(scene.bound("user").is_empty());
}

/// What cannot be said is said so, and is no empty policy.
#[test]
fn without_aws_there_is_nothing_to_print() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("stockade.toml");
    std::fs::write(&file, "[rbac]\n").unwrap();
    let said = Command::new(STOCKADE).args(["doctor", "--print-iam=access", "--config"]).arg(&file).output().unwrap();
    assert_eq!((said.status.code(), said.stdout.as_slice()), (Some(1), &b""[..]));
    assert!(String::from_utf8_lossy(&said.stderr).contains("there is no [aws] section"), "{said:?}");
}

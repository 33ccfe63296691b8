use super::worlds::*;
use crate::access::change::{Object, Target};

#[test]
fn taking_comes_before_giving_and_each_from_its_right_end() {
    let (terms, mut world) = (terms(""), hyades());
    join(&mut world, "k8s-admin@hyades", &["alice"]);
    let mut world = settled(world, &terms);
    leave(&mut world, "k8s-admin@hyades", "alice");
    join(&mut world, "k8s-user@hyades@taurus", &["bob"]);
    assert_eq!(
        lines(&planned(&world, &terms)),
        [
            "- hyades: ClusterRoleBinding k8s-admin@hyades",
            "- hyades: access entry of arn:aws:iam::123456789012:role/bastion/alice-kube",
            "- IAM role alice-kube",
            "- IAM role alice",
            "+ IAM role bob",
            "+ IAM role bob-kube",
            "+ hyades: access entry of arn:aws:iam::123456789012:role/bastion/bob-kube",
            "+ hyades: RoleBinding taurus/k8s-user@hyades@taurus",
        ]
    );
}

#[test]
fn who_leaves_a_role_that_grows_is_gone_before_and_who_comes_comes_after() {
    let less = terms(
        "[[rbac.level]]\nname = 'user'\nsystem_namespaces = 'same'\nallow = [{ resources = ['pods'], verbs = ['get'] }]",
    );
    let more = terms(
        "[[rbac.level]]\nname = 'user'\nsystem_namespaces = 'same'\nallow = [{ resources = ['pods'], verbs = ['get', 'list'] }]",
    );
    let mut world = hyades();
    join(&mut world, "k8s-user@hyades", &["alice"]);
    let mut world = settled(world, &less);
    leave(&mut world, "k8s-user@hyades", "alice");
    join(&mut world, "k8s-user@hyades", &["bob"]);
    let plan = planned(&world, &more);
    let binding = |target: &Target| matches!(target, Target::ClusterRoleBinding { .. });
    let steps: Vec<(bool, usize)> = plan
        .changes
        .iter()
        .map(|change| {
            let subjects = match &change.shall_be {
                Some(Object::Binding(binding)) => binding.subjects.len(),
                _ => 9,
            };
            (binding(&change.target), subjects)
        })
        .collect();
    let bindings: Vec<_> = steps.iter().filter(|(binding, _)| *binding).collect();
    assert_eq!(bindings, [&(true, 0), &(true, 1)]);
    let role = plan.changes.iter().position(|change| matches!(change.target, Target::ClusterRole { .. })).unwrap();
    assert!(steps[..role].contains(&(true, 0)) && steps[role..].contains(&(true, 1)), "{:?}", lines(&plan));
    settled(world, &more);
}

use super::worlds::*;

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
            "- IAM role alice",
            "- IAM role alice-kube",
            "+ IAM role bob",
            "+ IAM role bob-kube",
            "+ hyades: access entry of arn:aws:iam::123456789012:role/bastion/bob-kube",
            "+ hyades: RoleBinding taurus/k8s-user@hyades@taurus",
        ]
    );
}

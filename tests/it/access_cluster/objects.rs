//! Changes of RBAC, each kind of object in its turn.

use super::*;

#[tokio::test]
async fn each_kind_of_object_is_made_changed_put_right_and_removed() {
    let hyades = Clusters::start().hyades();
    let space = Space::new(hyades, "access-objects");
    let fleet = by_key(hyades).await;
    let all = one_of_each("k8s-user@taurus:objects", &space.name);
    let _litter =
        Litter(hyades, ["clusterrole", "clusterrolebinding"].map(|k| format!("{k}/k8s-user@taurus:objects")).into());
    for (target, first, second) in &all {
        fleet.carry_out(TAURUS, &change(target, None, Some(first.clone()), "")).await.unwrap();
        let (is, ours, version) = seen(&fleet.read(TAURUS).await.unwrap(), target).unwrap();
        assert_eq!((&is, ours), (first, true), "{target}");

        let again = fleet.carry_out(TAURUS, &change(target, None, Some(first.clone()), "")).await.unwrap_err();
        assert_eq!((again.code.as_str(), again.transient), ("AlreadyExists", true), "{target}");

        let replace = change(target, Some(first.clone()), Some(second.clone()), &version);
        fleet.carry_out(TAURUS, &replace).await.unwrap();
        let stale = fleet.carry_out(TAURUS, &replace).await.unwrap_err();
        assert_eq!((stale.code.as_str(), stale.transient), ("Conflict", true), "{target}");

        // By hand: other rights, a label of Kubernetes' own, and a lock against removal.
        let field = if matches!(second, Object::Rules(_)) { "rules" } else { "subjects" };
        let more =
            json!({ field: null, "metadata": {"labels": {"more": "1"}, "finalizers": ["test/lock"]} }).to_string();
        by_hand(hyades, "patch", target, &["--type=merge", "-p", &more]);
        let (drifted, ours, version) = seen(&fleet.read(TAURUS).await.unwrap(), target).unwrap();
        assert!(drifted != *second && ours, "{target}");
        fleet.carry_out(TAURUS, &change(target, Some(drifted), Some(second.clone()), &version)).await.unwrap();
        let world = fleet.read(TAURUS).await.unwrap();
        let (is, _, _) = seen(&world, target).unwrap();
        assert_eq!(is, *second, "{target}");
        let metadata: Value = serde_json::from_str(&by_hand(hyades, "get", target, &["-o", "json"])).unwrap();
        assert_eq!(metadata["metadata"]["labels"], json!(second.labels()), "{target}");

        by_hand(hyades, "patch", target, &["--type=merge", "-p", r#"{"metadata": {"finalizers": ["test/lock"]}}"#]);
        let (_, _, version) = seen(&fleet.read(TAURUS).await.unwrap(), target).unwrap();
        let remove = change(target, Some(second.clone()), None, &version);
        fleet.carry_out(TAURUS, &remove).await.unwrap();
        assert_eq!(seen(&fleet.read(TAURUS).await.unwrap(), target), None, "{target}");
        fleet.carry_out(TAURUS, &remove).await.unwrap();
        let gone = fleet.carry_out(TAURUS, &replace).await.unwrap_err();
        assert_eq!(gone.code, "Conflict", "{target}");
    }
}

#[tokio::test]
async fn a_binding_to_another_role_is_made_anew() {
    let hyades = Clusters::start().hyades();
    let space = Space::new(hyades, "access-rebound");
    let fleet = by_key(hyades).await;
    let _litter = Litter(hyades, vec!["clusterrolebinding/k8s-user@taurus:rebound".into()]);
    for (target, first, _) in &one_of_each("k8s-user@taurus:rebound", &space.name)[2..] {
        fleet.carry_out(TAURUS, &change(target, None, Some(first.clone()), "")).await.unwrap();
        let (_, _, version) = seen(&fleet.read(TAURUS).await.unwrap(), target).unwrap();
        let other = Object::Binding(binding("edit", &["bob"]));
        fleet.carry_out(TAURUS, &change(target, Some(first.clone()), Some(other.clone()), &version)).await.unwrap();
        let (is, ours, _) = seen(&fleet.read(TAURUS).await.unwrap(), target).unwrap();
        assert_eq!((is, ours), (other, true));
    }
}

/// "Only objects carrying our mark are changed; a foreign object in our place is reported and left"
#[tokio::test]
async fn what_is_not_ours_is_left_alone() {
    let hyades = Clusters::start().hyades();
    let space = Space::new(hyades, "access-foreign");
    let fleet = by_key(hyades).await;
    let _litter =
        Litter(hyades, ["clusterrole", "clusterrolebinding"].map(|k| format!("{k}/k8s-user@taurus:foreign")).into());
    for (target, first, second) in &one_of_each("k8s-user@taurus:foreign", &space.name) {
        fleet.carry_out(TAURUS, &change(target, None, Some(first.clone()), "")).await.unwrap();
        by_hand(hyades, "label", target, &["--overwrite", &format!("{LABEL}=helm")]);
        let (is, ours, version) = seen(&fleet.read(TAURUS).await.unwrap(), target).unwrap();
        assert_eq!((&is, ours), (first, false));
        for shall_be in [Some(second.clone()), None] {
            let refused = fleet.carry_out(TAURUS, &change(target, Some(is.clone()), shall_be, &version)).await;
            let Fault { code, message, transient } = refused.unwrap_err();
            assert_eq!((code.as_str(), transient), ("Foreign", false));
            assert!(message.contains(&format!("has no label {LABEL}={LABELLED}: it is left alone")), "{message}");
        }
        let (left, _, same) = seen(&fleet.read(TAURUS).await.unwrap(), target).unwrap();
        assert_eq!((left, same), (is, version));
    }
}

//! A group of the API whose own server is away: what it serves is not to be had, and nobody's roles change for that.

use super::worlds::*;
use crate::access::world::{Rbac, Rules, World};

const GROUPS: [&str; 2] = ["astro.example.com", "metrics.k8s.io"];
/// Lists what the built-in levels take by the star.
const LISTED: &str = "[[rbac.level]]\nname = 'user'\nallow = [{ resources = ['pods', '*.astro.example.com', \
                      'pods.metrics.k8s.io'], except = ['galaxies/x.astro.example.com'], verbs = ['get', 'delete'] }]\n";

fn go_away(world: &mut World) {
    let cluster = read_mut(world, "hyades");
    cluster.served.retain(|one| !GROUPS.contains(&one.group.as_str()));
    cluster.stale = set(GROUPS);
}

fn come_back(world: &mut World) {
    let cluster = read_mut(world, "hyades");
    (cluster.served, cluster.stale) = (served(), Default::default());
}

/// Every role's rules for these groups, in words.
fn said(role: &Rbac<Rules>) -> String {
    let about = role.is.rules.iter().filter(|rule| GROUPS.iter().any(|group| rule.groups.contains(*group)));
    about.map(|rule| format!("{:?} {:?} {:?}\n", rule.verbs, rule.groups, rule.resources)).collect()
}

#[test]
fn roles_stay_as_they_are_while_it_is_away() {
    for rbac in ["", LISTED] {
        let terms = terms(rbac);
        let mut world = settled(hyades(), &terms);
        assert!(said(&read(&world, "hyades").cluster_roles["k8s-user@hyades"]).contains("galaxies"), "{rbac}");
        go_away(&mut world);
        assert_eq!(lines(&planned(&world, &terms)), Vec::<String>::new(), "{rbac}");
    }
}

#[test]
fn what_is_new_meanwhile_is_completed_when_it_answers() {
    let terms = terms(LISTED);
    let mut world = settled(hyades(), &terms);
    go_away(&mut world);
    read_mut(&mut world, "hyades").namespaces.insert("web".into(), Default::default());
    let mut world = settled(world, &terms);
    let key = ("web".to_owned(), "k8s-user@hyades@web".to_owned());
    assert_eq!(said(&read(&world, "hyades").roles[&key]), "");
    come_back(&mut world);
    let plan = planned(&world, &terms);
    assert_eq!(lines(&plan), ["~ hyades: Role web/k8s-poweruser@hyades@web", "~ hyades: Role web/k8s-user@hyades@web"]);
    settled(world, &terms);
}

#[test]
fn what_the_level_allows_no_more_goes_all_the_same() {
    let mut world = settled(hyades(), &terms(LISTED));
    go_away(&mut world);
    let after = settled(world, &terms(&LISTED.replace("'get', 'delete'", "'get'").replace("'*.astro", "'stars.astro")));
    let inner = &read(&after, "hyades").cluster_roles["k8s-user@hyades:namespaces"];
    let all = said(inner);
    assert!(all.contains("stars") && all.contains("pods"), "{all}");
    let whole = said(&read(&after, "hyades").cluster_roles["k8s-user@hyades"]);
    assert!(!all.contains("delete") && !whole.contains("delete") && !whole.contains("galaxies"), "{all}{whole}");
}

#[test]
fn what_a_hand_wrote_is_not_kept() {
    let terms = terms("");
    let mut world = settled(hyades(), &terms);
    go_away(&mut world);
    let role = read_mut(&mut world, "hyades").cluster_roles.get_mut("k8s-user@hyades").unwrap();
    role.is.rules.push(crate::access::world::Rule {
        verbs: set(["delete"]),
        groups: set(["metrics.k8s.io"]),
        resources: set(["pods"]),
        ..Default::default()
    });
    assert_eq!(lines(&planned(&world, &terms)), ["~ hyades: ClusterRole k8s-user@hyades"]);
    let mut after = settled(world, &terms);
    assert_eq!(said(&read(&after, "hyades").cluster_roles["k8s-user@hyades"]), "");
    come_back(&mut after);
    let after = settled(after, &terms);
    assert!(!said(&read(&after, "hyades").cluster_roles["k8s-user@hyades"]).contains("delete"));
}

#[test]
fn a_group_that_is_gone_is_not_one_that_is_away() {
    let terms = terms(LISTED);
    let mut world = settled(hyades(), &terms);
    go_away(&mut world);
    read_mut(&mut world, "hyades").stale.clear();
    let after = settled(world, &terms);
    assert_eq!(said(&read(&after, "hyades").cluster_roles["k8s-user@hyades"]), "");
}

//! Clusters that come and go.

use super::Told;
use crate::audit::Event;

pub(super) fn tell(event: &Event) -> Told {
    let about = |told: Told, cluster: &str, endpoint: &str, place: &str| {
        told.and("cluster", cluster).and("endpoint", endpoint).and("place", place)
    };
    match event {
        Event::ClusterAppeared { cluster, endpoint, place } => {
            about(Told::new(format!("cluster {cluster} was found in {place}")), cluster, endpoint, place)
        }
        Event::ClusterGone { cluster, endpoint, place } => {
            about(Told::new(format!("cluster {cluster} of {place} is there no more")), cluster, endpoint, place)
        }
        Event::DiscoveryFailed { place, code, message } => {
            Told::new(format!("looking for clusters failed ({place}): {code}: {message}"))
                .failed()
                .and("place", place.as_str())
                .and("code", code.as_str())
                .and("reason", message.as_str())
        }
        Event::DiscoveryWorks { place } => {
            Told::new(format!("looking for clusters works again ({place})")).and("place", place.as_str())
        }
        _ => Told::new(event.code().name),
    }
}

//! Issue 5, "Proof with real clients": kube-rs, the client of Rust programs, as a laptop has it.

use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, LogParams, PostParams, WatchParams};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Error};

use crate::kube::pod;
use crate::laptop::bastion;
use crate::yard::{Clusters, Laptop};

/// With the kubeconfig that the bastion prints; plain ssh is its exec plugin.
async fn client(laptop: &Laptop, cluster: &str) -> Client {
    let mut kubeconfig = Kubeconfig::read_from(laptop.kubeconfig()).unwrap();
    for user in &mut kubeconfig.auth_infos {
        let plugin = user.auth_info.as_mut().unwrap().exec.as_mut().unwrap();
        assert_eq!(plugin.command.as_deref(), Some("ssh"));
        plugin.command = Some(laptop.ssh().display().to_string());
    }
    let options = KubeConfigOptions { context: Some(cluster.to_owned()), ..KubeConfigOptions::default() };
    Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap()).unwrap()
}

#[test]
fn kube_rs_lists_watches_writes_and_reads_logs() {
    let namespace = Clusters::start().hyades().namespace("rust");
    let yard = bastion("1h");
    let laptop = Laptop::of(&yard, "alice");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = client(&laptop, "hyades").await;
        assert!(client.apiserver_version().await.unwrap().git_version.starts_with("v1.36"));
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        let listed = pods.list(&ListParams::default()).await.unwrap();
        assert_eq!(listed.items[0].metadata.name.as_deref(), Some("web"));

        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let from = listed.metadata.resource_version.unwrap();
        let watch = kube::core::Request::new(path).watch(&WatchParams::default(), &from).unwrap();
        let mut watch = client.send(watch.map(Body::from)).await.unwrap().into_body();
        let made = serde_json::from_str(&pod("made")).unwrap();
        pods.create(&PostParams::default(), &made).await.unwrap();
        let seen = watch.frame().await.unwrap().unwrap().into_data().unwrap();
        let seen = String::from_utf8(seen.to_vec()).unwrap();
        assert!(seen.contains("\"ADDED\"") && seen.contains("none.invalid/made"), "{seen}");

        let app = LogParams { container: Some("app".into()), ..LogParams::default() };
        assert!(pods.logs("web", &app).await.unwrap().starts_with("line 1\nline 2\n"));
        // The node writes the pod's status meanwhile.
        loop {
            let replaced = pods.get("made").await.unwrap();
            match pods.replace("made", &PostParams::default(), &replaced).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                done => break drop(done.unwrap()),
            }
        }
        pods.delete("made", &DeleteParams::default().grace_period(0)).await.unwrap();
    });
}

/// A refusal is a Status, whoever refuses.
#[test]
fn kube_rs_understands_refusals() {
    let yard = bastion("1h");
    let laptop = Laptop::of(&yard, "bob");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let secrets: Api<Secret> = Api::namespaced(client(&laptop, "hyades").await, "team-a");
        for (wanted, message) in [(403, "secrets is forbidden"), (401, "no token that is good")] {
            // A grant that ends takes its kept connections with it.
            let status = loop {
                match secrets.list(&ListParams::default()).await.unwrap_err() {
                    Error::Api(status) => break status,
                    Error::Service(_) | Error::HyperError(_) => {}
                    other => panic!("{other:?}"),
                }
            };
            assert!(status.code == wanted && status.message.contains(message), "{status:?}");
            yard.configure("[access]\ndeny_users = ['bob']");
            yard.signal("HUP");
            yard.audit().wait_for("SK4202I", |_| true);
        }
    });
}

//! Whole bastions under real clients. One test binary; `tests/run --it FILTER` runs a part of it.
//!
//! A comment at a test says which line of the first issues it proves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod access;
mod access_aws;
mod access_cluster;
mod access_eks;
mod access_lambda;
mod access_scene;
mod access_verbs;
mod admission;
mod attempts;
mod aws;
mod bed;
mod clients;
mod clusters;
mod codes;
mod configuration;
mod control;
mod crosstalk;
mod demo;
mod doors;
mod durable;
mod egress;
mod evidence;
mod exec;
mod fences;
mod image;
mod jail;
mod kube;
mod kube_audit;
mod kube_clients;
mod kube_end;
mod kube_rights;
mod kube_rs;
mod kube_rules;
mod kube_streams;
mod kube_tokens;
mod kube_tools;
mod laptop;
mod limits;
mod locks;
mod paramiko;
mod portal;
mod probe;
mod refused;
mod rights;
mod roles;
mod rooms;
mod sdks;
mod shell;
mod storm;
mod tries;
mod trouble;
mod verbs;
mod yard;

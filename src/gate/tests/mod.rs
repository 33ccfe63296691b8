mod portal;
mod yard;

use std::time::{Duration, Instant};

use yard::{Yard, eventually, run};

use super::{MaxStartups, Rekey, Settings};
use crate::audit::Event;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_runs_and_its_status_comes_back() {
    let yard = Yard::new().await;
    for code in [0, 7, 255] {
        let output = yard.ssh(&[], &format!("exit {code}"), vec![]).await;
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    }
    let output = yard.ssh(&[], "both", vec![]).await;
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("out\n", "err\ntake care\n"));
    assert_eq!(output.status.code(), Some(3));
    assert!(yard.was_told("Gone"));
    assert!(yard.was_told("client: \"SSH-2.0-OpenSSH"));
    assert!(yard.has_event(|event| matches!(event, Event::Connected { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_mebibytes_go_both_ways_while_keys_change() {
    let settings = Settings { rekey: Rekey { bytes: 1 << 20, time: Duration::from_secs(3600) }, ..Settings::default() };
    for settings in [Settings::default(), settings] {
        let yard = Yard::with(settings).await;
        let input: Vec<u8> = (0..50 << 20).map(|i: u32| (i.wrapping_mul(2654435761) >> 24) as u8).collect();
        let output = yard.ssh(&["-o", "RekeyLimit=1M"], "cat", input.clone()).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(output.stdout == input, "{} bytes came back", output.stdout.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_input_is_not_the_end_of_output() {
    let yard = Yard::new().await;
    let output = yard.ssh(&[], "count", vec![1; 100_000]).await;
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("100000", Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_key_of_the_right_user_is_let_in_and_refusals_look_alike() {
    let yard = Yard::new().await;
    let mut times = Vec::new();
    for (user, key) in [("alice", "mallory"), ("nobody", "alice"), ("locked", "alice")] {
        let start = Instant::now();
        let output = run(yard.ssh_command(user, key, &[]), vec![]).await;
        times.push(start.elapsed());
        assert_eq!(output.status.code(), Some(255));
        assert!(text(&output.stderr).contains("Permission denied (publickey)"), "{}", text(&output.stderr));
    }
    for time in times {
        assert!((1000..1400).contains(&time.as_millis()), "{time:?}");
    }
    assert!(!yard.was_told("Open {"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_prompt() {
    let yard = Yard::new().await;
    let mut times = Vec::new();
    for _ in 0..10 {
        let start = Instant::now();
        assert!(yard.ssh(&[], "exit 0", vec![]).await.status.success());
        times.push(start.elapsed());
    }
    times.sort();
    println!("ssh host true: median {:?}, worst {:?}", times[5], times[9]);
    // The `none` probe's second and the 40 ms of delayed acknowledgements would both show.
    assert!(times[0] < Duration::from_millis(500), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarding_is_refused_with_a_sentence_and_an_event() {
    let yard = Yard::new().await;
    let output = run(yard.ssh_command("alice", "alice", &["-o", "LogLevel=INFO", "-W", "127.0.0.1:1"]), vec![]).await;
    assert!(text(&output.stderr).contains("forwarding is not offered here"), "{}", text(&output.stderr));
    let options = ["-A", "-R", "0:127.0.0.1:1"];
    assert!(yard.ssh(&options, "exit 0", vec![]).await.status.success());
    let output = yard.ssh(&["-s"], "sftp", vec![]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("not offered here"), "{}", text(&output.stderr));
    for wanted in ["forwarding to 127.0.0.1:1", "listening on localhost:0", "the subsystem sftp"] {
        let asked = |event: &Event| matches!(event, Event::RequestRefused { user, what, .. } if user == "alice" && what == wanted);
        // The client has its answer before the keeper has read of it.
        eventually(wanted, || yard.has_event(asked)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_warden_refuses_is_told_in_its_words() {
    let yard = Yard::new().await;
    let output = yard.ssh(&[], "refused", vec![]).await;
    assert_eq!((text(&output.stderr).as_str(), output.status.code()), ("no recording, no session\n", Some(254)));
    let output = yard.ssh(&[], "dropped", vec![]).await;
    assert!(text(&output.stderr).contains("you are locked"), "{}", text(&output.stderr));
    let output = yard.ssh(&[], "vanish", vec![]).await;
    assert_eq!(output.status.code(), Some(254));
    assert!(text(&output.stderr).contains("the recording has ended"), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn terminal_and_variables_reach_the_program() {
    let yard = Yard::new().await;
    let mut command = yard.ssh_command("alice", "alice", &["-tt", "-o", "SendEnv=LC_TEST SECRET"]);
    command.env("TERM", "xterm-test").env("LC_TEST", "yes").env("SECRET", "no");
    let output = run(command, vec![]).await;
    let out = text(&output.stdout);
    assert!(out.contains("term: \"xterm-test\"") && out.contains("(\"LC_TEST\", \"yes\")"), "{out}");
    assert!(!out.contains("SECRET"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_does_not_log_in_is_kept_small() {
    let settings = Settings {
        per_source: 2,
        max_startups: MaxStartups { start: 10, rate: 30, full: 100 },
        login_grace: Duration::from_millis(700),
        penalties: None,
        ..Settings::default()
    };
    let yard = Yard::with(settings).await;
    let address = ("127.0.0.1", yard.port);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(tokio::net::TcpStream::connect(address).await.unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut first = [0; 64];
    let n = tokio::io::AsyncReadExt::read(&mut held[2], &mut first).await.unwrap();
    assert_eq!(&first[..n], b"Exceeded MaxStartups\r\n");
    let n = tokio::io::AsyncReadExt::read(&mut held[0], &mut first).await.unwrap();
    assert_eq!(&first[..n], b"SSH-2.0-stockade\r\n");
    // One of them speaks, and still has no key.
    tokio::io::AsyncWriteExt::write_all(&mut held[1], b"SSH-2.0-x\r\n").await.unwrap();
    for wanted in ["from this address", "did not log in in time"] {
        let refused = |event: &Event| matches!(event, Event::ConnectionRefused { why, .. } if why.contains(wanted));
        eventually(wanted, || yard.has_event(refused)).await;
    }
    // Both that were held are gone, so there is a place.
    assert!(yard.ssh(&[], "exit 0", vec![]).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_keeper_nobody_connects_and_without_a_warden_nobody_logs_in() {
    let mut yard = Yard::new().await;
    yard.stop_keeper().await;
    assert_eq!(yard.ssh(&[], "exit 0", vec![]).await.status.code(), Some(255));
    yard.start_keeper();
    let back = async { while !yard.ssh(&[], "exit 0", vec![]).await.status.success() {} };
    tokio::time::timeout(Duration::from_secs(30), back).await.expect("logins with a new keeper");

    yard.warden.abort();
    let _ = (&mut yard.warden).await;
    let output = yard.ssh(&[], "exit 0", vec![]).await;
    assert!(text(&output.stderr).contains("Permission denied"), "{}", text(&output.stderr));
    yard.start_warden();
    let met = || yard.told.lock().unwrap().iter().filter(|told| told.starts_with("Alive")).count();
    eventually("a new warden", || met() == 2).await;
    assert!(yard.ssh(&[], "exit 0", vec![]).await.status.success());
    let away = |event: &Event| matches!(event, Event::ConnectionRefused { why, .. } if why.contains("keeper"));
    assert!(yard.has_event(away));
}

mod clients;

//! The ladder on real parts: a flag that heals keeps the traffic where it is; one that does not makes way for HAProxy.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::stack::{Options, Stack};

const SOAK: Duration = Duration::from_secs(150);
const SOON: Duration = Duration::from_secs(60);

/// The rung before HAProxy's.
fn with_first_rung(step: &str) -> Stack {
    let mut stack = Stack::start(&Options { soak: "60s", ..Options::default() });
    let first = "[[service.rollback]]\nname = \"haproxy\"";
    let green = stack.port("GREEN").to_string();
    let step = step.replace("@GREEN@", &green).replace("@DIR@", stack.dir.path().to_str().unwrap());
    stack.reconfigure(
        first,
        &format!("[[service.rollback]]\nname = \"flag off\"\nheals_within = \"12s\"\n{step}\n{first}"),
    );
    stack.seed_normal();
    stack.start_daemon();
    stack
}

/// What happened when, in seconds after the breach.
fn told(stack: &Stack, id: &str) -> Vec<(f64, String, String)> {
    let view = stack.watch(id);
    let all = view["timeline"].as_array().cloned().unwrap_or_default();
    let at = |e: &Value| e["at"].as_f64().unwrap();
    let breached = all.iter().find(|e| e["kind"] == "breached").map_or(0.0, at);
    let told: Vec<_> = all
        .iter()
        .filter(|e| at(e) >= breached)
        .map(|e| {
            (
                (at(e) - breached) / 1000.0,
                e["kind"].as_str().unwrap().to_owned(),
                e["text"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    for (after, kind, text) in &told {
        println!("{after:6.2} s {kind}: {}", text.chars().take(100).collect::<String>());
    }
    told
}

#[test]
fn the_flag_heals_it_and_the_traffic_stays() {
    // The flag's own API: turning it off ends the errors.
    let stack = with_first_rung(
        "http = { method = \"PUT\", url = \"http://127.0.0.1:@GREEN@/fault?errors=0\" }\n\
         probe = { http = { url = \"http://127.0.0.1:@GREEN@/fault\", pointer = \"/errors\" }, expect = \"0.0\" }",
    );
    stack.fault("green", "errors=0.3");
    stack.switch_to("green");
    let id = stack.announce();
    assert_eq!(stack.outcome(&id, SOAK), "healed");
    assert_eq!((stack.rollbacks(), stack.active_slot().as_str()), (0, "green"));
    let told = told(&stack, &id);
    assert!(told.iter().any(|(_, kind, _)| kind == "healing"));
    let mail = stack.mail("healed", SOON);
    assert!(
        mail.subject.contains("HEALED") && mail.text.contains("flag off; no traffic was moved"),
        "{}\n{}",
        mail.subject,
        mail.text
    );
    println!("{}", mail.text);
}

#[test]
fn the_flag_does_not_help_and_the_traffic_moves() {
    // Nobody reads this flag.
    let stack = with_first_rung("file = { path = \"@DIR@/flag\", content = \"off\" }");
    fs::write(stack.dir.path().join("flag"), "on\n").unwrap();
    stack.fault("green", "errors=0.3");
    stack.switch_to("green");
    let id = stack.announce();
    assert_eq!(stack.outcome(&id, SOAK), "rolled_back_recovered");
    assert_eq!((stack.rollbacks(), stack.active_slot().as_str()), (1, "blue"));
    assert_eq!(fs::read_to_string(stack.dir.path().join("flag")).unwrap(), "off\n");
    let told = told(&stack, &id);
    let after = |kind: &str| told.iter().find(|(_, k, _)| k == kind).map(|(at, ..)| *at).unwrap();
    assert!(after("not_healed") < after("step_ended").max(after("recovering")), "{told:?}");
    let mail = stack.mail("rolled_back_recovered", SOON);
    assert!(mail.text.contains("flag off done, haproxy done"), "{}", mail.text);
}

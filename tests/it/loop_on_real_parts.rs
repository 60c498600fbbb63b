//! The whole loop against real Prometheus, HAProxy, SMTP and two real processes: what each kind of
//! release, and each kind of trouble, must lead to.

use std::time::{Duration, Instant};

use crate::stack::{Options, Stack, wait_until};

const SOON: Duration = Duration::from_secs(30);
const SOAK: Duration = Duration::from_secs(100);

fn up(options: &Options) -> Stack {
    let mut stack = Stack::start(options);
    stack.seed_normal();
    stack.start_daemon();
    stack
}

#[test]
fn a_good_release_passes_with_one_notice_and_then_the_old_slot_goes() {
    // The old slot is torn down when the soak is over, and read back.
    let after =
        "\n[[service.after_passed]]\nname = \"tear down\"\nfile = { path = \"@DIR@/blue-is\", content = \"gone\" }\n";
    let mut stack = Stack::start(&Options { more: after, ..Options::default() });
    stack.start_daemon();
    // Here, and wherever a test is about recording, the normal is recorded; elsewhere it lies there.
    stack.record_baseline();
    let mark = stack.dir.path().join("blue-is");
    stack.switch_to("green");
    let id = stack.announce();
    wait_until(SOON, "it soaks", || stack.kinds(&id).contains(&"cut_over".to_owned()).then_some(()));
    assert!(!mark.exists(), "never before the soak's end");
    assert_eq!(stack.outcome(&id, SOAK), "passed");
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), "gone\n");
    let view = stack.watch(&id);
    let step = &view["steps"][0];
    let ended_soak = view["soak_ends_at"].as_i64().unwrap();
    assert!(step["proven_at"].is_i64() && step["intended_at"].as_i64().unwrap() >= ended_soak, "{step:#}");
    assert_eq!((stack.rollbacks(), stack.active_slot().as_str()), (0, "green"));
    stack.mail("passed", SOON);
    assert_eq!(stack.reasons(), ["passed"]);
}

#[test]
fn ten_times_the_errors_are_rolled_back_once_and_proven() {
    let stack = up(&Options::default());
    stack.fault("green", "errors=0.1");
    let fault_at = Instant::now();
    stack.switch_to("green");
    let id = stack.announce();
    wait_until(SOON, "blue is active again", || (stack.active_slot() == "blue").then_some(()));
    println!("errors: back after {:.1} s", fault_at.elapsed().as_secs_f64());
    assert_eq!(stack.outcome(&id, SOAK), "rolled_back_recovered");
    assert_eq!(stack.rollbacks(), 1, "the rollback command runs exactly once");
    let mail = stack.mail("rolled_back_recovered", SOON);
    // Drawn from the readings that were judged: the rate of the fault, and where it began.
    let chart = mail.text.lines().find(|l| l.contains("error rate of checkout,")).unwrap_or_default();
    assert!(mail.pictures >= 1 && chart.contains("cut-over at") && chart.contains("rolled back at"), "{}", mail.text);
    let (low, high) = chart
        .split_once("green ")
        .and_then(|(_, rest)| rest.split_once(" %")?.1.strip_prefix(" to ").map(|high| (rest, high)))
        .map(|(low, high)| {
            let number = |text: &str| text.split(' ').next().and_then(|n| n.parse::<f64>().ok());
            (number(low), number(high))
        })
        .unwrap_or_default();
    assert!(low.is_some_and(|low| low <= 10.5) && high.is_some_and(|high| (9.5..25.0).contains(&high)), "{chart}");
    assert!(
        mail.subject.starts_with("[flipback] ROLLED BACK checkout green → blue (v1.3): error rate"),
        "{}",
        mail.subject
    );
    assert!(
        mail.text.contains("flipback show checkout-1") && mail.text.contains("http_requests_total"),
        "{}",
        mail.text
    );
    let first = stack.mail("breached_acting", SOON);
    assert_eq!(mail.headers["references"], first.headers["message-id"], "one thread for each switch");
    assert_eq!(stack.reasons(), ["breached_acting", "rolled_back_recovered"]);
    // The engine decides the same, at the same tick, when it is played from the journal.
    let config = stack.dir.path().join("flipback.toml");
    let done =
        stack.flipback(&["backtest", "checkout", "--from-journal", "-o", "json", "--config", config.to_str().unwrap()]);
    let again: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let after = |i: usize| again["rows"][0]["plays"][i]["would"]["roll_back"]["after_s"].as_f64().unwrap();
    assert!((after(0) - after(1)).abs() < 2.5, "{again:#}");
}

#[test]
fn twice_the_p99_is_rolled_back() {
    let stack = up(&Options::default());
    stack.fault("green", "slow_ms=20");
    stack.switch_to("green");
    let id = stack.announce();
    assert_eq!(stack.outcome(&id, SOAK), "rolled_back_recovered");
    let view = stack.watch(&id);
    let broken: Vec<_> = view["breach"]["evidence"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["state"] == "breached")
        .map(|e| e["signal"].to_string())
        .collect();
    assert!(broken.iter().any(|s| s.contains("p99") || s.contains("p95")), "{broken:?}");
    assert_eq!(stack.rollbacks(), 1);
}

#[test]
fn a_total_outage_is_rolled_back() {
    let stack = up(&Options::default());
    stack.fault("green", "errors=1");
    stack.switch_to("green");
    let began = Instant::now();
    let id = stack.announce();
    wait_until(Duration::from_secs(25), "blue is active again", || (stack.active_slot() == "blue").then_some(()));
    println!("outage: back after {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!(stack.outcome(&id, SOAK), "rolled_back_recovered");
}

#[test]
fn a_killed_new_slot_is_rolled_back_within_thirty_seconds() {
    let stack = up(&Options::default());
    stack.switch_to("green");
    let id = stack.announce();
    stack.slots["green"].signal("-KILL");
    wait_until(SOON, "blue is active again", || (stack.active_slot() == "blue").then_some(()));
    assert_eq!(stack.outcome(&id, SOAK), "rolled_back_recovered");
    let mail = stack.mail("rolled_back_recovered", SOON);
    assert!(mail.subject.contains("slot down"), "{}", mail.subject);
}

#[test]
fn a_new_slot_that_never_answers_is_rolled_back_within_thirty_seconds() {
    let stack = up(&Options::default());
    stack.fault("green", "hang=true");
    stack.switch_to("green");
    let id = stack.announce();
    wait_until(SOON, "blue is active again", || (stack.active_slot() == "blue").then_some(()));
    assert_eq!(stack.outcome(&id, SOAK), "rolled_back_recovered");
    assert_eq!(stack.rollbacks(), 1);
}

#[test]
fn with_a_dead_old_slot_nothing_moves_and_people_are_paged() {
    let stack = up(&Options::default());
    stack.fault("green", "errors=0.5");
    stack.switch_to("green");
    let id = stack.announce();
    stack.slots["blue"].signal("-KILL");
    assert_eq!(stack.outcome(&id, SOAK), "withheld");
    assert_eq!((stack.rollbacks(), stack.active_slot().as_str()), (0, "green"));
    let mail = stack.mail("withheld", SOON);
    assert_eq!(mail.headers["x-flipback-severity"], "page");
    assert!(mail.text.contains("no safe target"), "{}", mail.text);
}

#[test]
fn with_both_slots_dead_nothing_moves_and_people_are_paged() {
    let stack = up(&Options::default());
    stack.switch_to("green");
    let id = stack.announce();
    stack.slots["blue"].signal("-KILL");
    stack.slots["green"].signal("-KILL");
    assert_eq!(stack.outcome(&id, SOAK), "withheld");
    assert_eq!(stack.rollbacks(), 0);
    stack.mail("withheld", SOON);
}

#[test]
fn without_prometheus_it_is_blind_never_rolls_back_and_resumes() {
    let mut stack = up(&Options { soak: "60s", ..Options::default() });
    stack.switch_to("green");
    let id = stack.announce();
    wait_until(SOON, "some ticks", || (stack.watch(&id)["ticks"].as_u64()? > 3).then_some(()));
    stack.prometheus = None;
    let mail = stack.mail("blind", Duration::from_secs(120));
    assert_eq!(mail.headers["x-flipback-severity"], "page");
    assert_eq!(stack.watch(&id)["verdict"], "blind");
    stack.start_prometheus();
    stack.mail("sees_again", SOON);
    assert_eq!(stack.outcome(&id, Duration::from_secs(150)), "passed");
    assert_eq!(stack.rollbacks(), 0);
    assert!(stack.kinds(&id).contains(&"extended".to_owned()), "what was not seen is soaked longer");
}

#[test]
fn a_duplicate_announcement_is_one_watch() {
    let stack = up(&Options::default());
    stack.switch_to("green");
    let id = stack.announce();
    assert_eq!(stack.announce(), id);
    let with_id = ["announce", "checkout", "--old", "blue", "--new", "green", "--version", "v1.3", "--id", "deploy-7"];
    assert_eq!(String::from_utf8_lossy(&stack.flipback(&with_id).stdout).trim(), id);
    let history = stack.flipback(&["history", "-o", "json"]);
    let all: serde_json::Value = serde_json::from_slice(&history.stdout).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 1);
}

#[test]
fn traffic_that_never_moved_is_unconfirmed() {
    let stack = up(&Options { confirm: "8s", ..Options::default() });
    let id = stack.announce();
    assert_eq!(stack.outcome(&id, SOON), "unconfirmed");
    assert_eq!(stack.rollbacks(), 0);
    let mail = stack.mail("unconfirmed", SOON);
    assert!(mail.text.contains("still shows"), "{}", mail.text);
}

#[test]
fn after_kill_nine_the_watch_goes_on_with_its_counts() {
    let mut stack = up(&Options { soak: "40s", ..Options::default() });
    stack.switch_to("green");
    let id = stack.announce();
    let ticks = wait_until(SOON, "some ticks", || stack.watch(&id)["ticks"].as_u64().filter(|n| *n > 5));
    let counted = |stack: &Stack| stack.watch(&id)["evidence"][0]["requests"].as_f64().unwrap_or(0.0);
    let before = counted(&stack);
    stack.daemon.as_ref().unwrap().signal("-KILL");
    stack.daemon = None;
    // While it is down the command line reads the state directory, and says so.
    let down = stack.flipback(&["show", &id]);
    assert!(String::from_utf8_lossy(&down.stderr).contains("cannot be reached"));
    assert!(String::from_utf8_lossy(&down.stdout).contains("checkout-1"));
    stack.start_daemon();
    wait_until(SOON, "more ticks than before", || (stack.watch(&id)["ticks"].as_u64()? > ticks + 2).then_some(()));
    assert!(counted(&stack) > before, "the counts go on from where they were");
    assert!(stack.kinds(&id).contains(&"restarted".to_owned()));
    assert_eq!(stack.outcome(&id, SOAK), "passed");
    // Nothing was lost over the gap: the sum equals what Prometheus scraped of green up to the last tick.
    assert_eq!(stack.rollbacks(), 0);
}

#[test]
fn a_person_can_ask_first_and_disarm_stops_everything() {
    let stack = up(&Options { mode: "ask", ..Options::default() });
    stack.fault("green", "errors=0.3");
    stack.switch_to("green");
    let id = stack.announce();
    let mail = stack.mail("approval_wanted", SOON);
    assert!(mail.text.contains(&format!("flipback approve {id}")), "{}", mail.text);
    assert_eq!(stack.active_slot(), "green", "nothing moves before the answer");
    assert!(stack.flipback(&["disarm", "checkout"]).status.success());
    assert!(stack.flipback(&["approve", &id]).status.success());
    assert_eq!(stack.outcome(&id, SOON), "withheld");
    assert_eq!((stack.rollbacks(), stack.active_slot().as_str()), (0, "green"));
    let waited = stack.flipback(&["wait", &id]);
    assert_eq!(waited.status.code(), Some(1), "withheld fails the pipeline");
}

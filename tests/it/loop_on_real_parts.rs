//! The whole loop against real Prometheus, HAProxy, SMTP and two real processes.

use std::time::Duration;

use crate::stack::{Options, Stack, wait_until};

const SOON: Duration = Duration::from_secs(30);
const SOAK: Duration = Duration::from_secs(75);

fn up(options: &Options) -> Stack {
    let mut stack = Stack::start(options);
    stack.start_daemon();
    stack.record_baseline();
    stack
}

#[test]
fn a_bad_release_is_rolled_back_once_and_proven() {
    let stack = up(&Options::default());
    stack.fault("green", "errors=0.1");
    stack.switch_to("green");
    let id = stack.announce();
    assert_eq!(stack.outcome(&id, SOAK), "rolled_back_recovered");
    assert_eq!(stack.active_slot(), "blue");
    assert_eq!(stack.rollbacks(), 1, "the rollback command runs exactly once");
    let mail = stack.mail("rolled_back_recovered", SOON);
    assert!(mail.subject.starts_with("[flipback] ROLLED BACK checkout green → blue (v1.3): error rate"), "{}", mail.subject);
    println!("{}", mail.text);
    assert!(mail.text.contains("flipback show checkout-1") && mail.text.contains("http_requests_total"));
    wait_until(SOON, "both notices in one thread", || (stack.reasons() == ["breached_acting", "rolled_back_recovered"]).then_some(()));
}

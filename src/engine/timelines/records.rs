//! One of each kind of input and command, as the store writes them: the fixture of the records' shapes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::message::{Command, Input, Job};
use super::*;
use crate::domain::switch::{Alert, Percent, Sighting};

/// The first of each kind.
#[derive(Default)]
pub(super) struct Kinds {
    inputs: BTreeMap<String, Value>,
    commands: BTreeMap<String, Value>,
}

impl Kinds {
    pub(super) fn take(&mut self, input: &Input, commands: &[Command]) {
        let name = |value: &Value| match value {
            Value::String(kind) => kind.clone(),
            other => other.as_object().unwrap().keys().next().unwrap().clone(),
        };
        let input = serde_json::to_value(input).unwrap();
        self.inputs.entry(name(&input)).or_insert(input);
        for command in commands {
            let command = serde_json::to_value(command).unwrap();
            self.commands.entry(name(&command)).or_insert(command);
        }
    }
}

/// Read by the store's own test. Until the first release a change of shape makes it anew; after it, a new
/// version of the records begins and this file stays.
#[test]
fn records_of_each_kind() {
    let mut w = World::new();
    w.kinds = Some(Kinds::default());
    w.put(Input::Configured { services: vec![w.service.clone()], brakes: Brakes::default() });
    w.put(Input::Cron { job: Job::RecordBaseline });
    w.put(Input::Cron { job: Job::Prune });
    w.errors.insert("green", 0.10);
    w.steps = [Does::Fails].into();
    let _ = w.switch("green", "v2");
    while w.ran.is_empty() {
        assert!(w.step_once(BEGAN + Span::from_secs(60)));
    }
    w.restart();
    w.run_to_end(1);
    let _ = w.arm(None, false);
    let _ = w.answer(1, true);
    let _ = w.cancel(1);
    let _ = w.order(1);
    let service = w.service.name.clone();
    let seen = Sighting { shares: [(slot("blue"), Percent::ALL)].into(), version: None };
    w.put(Input::Sighted { service: service.clone(), by: "haproxy".into(), seen });
    let alert = Alert { name: "Errors".into(), summary: None, began_at: BEGAN };
    let request = w.request();
    w.put(Input::Accused { request, service, by: "webhook alerts".into(), alerts: vec![alert], acts: false });
    w.put(Input::Space { low: true });
    w.put(Input::Space { low: false });
    let kinds = w.kinds.unwrap();
    let all = json!({
        "inputs": kinds.inputs.into_values().collect::<Vec<_>>(),
        "commands": kinds.commands.into_values().collect::<Vec<_>>(),
    });
    insta::with_settings!({ snapshot_path => "../../../tests/vectors", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("journal_v1", serde_json::to_string_pretty(&all).unwrap());
    });
}

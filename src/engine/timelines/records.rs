//! One of each kind of input and command, as the store writes them: the fixture of the records' shapes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::message::{Command, Input, Job};
use super::*;
use crate::domain::action::{
    FileSet, Haproxy, HttpCall, HttpLook, HttpTarget, Nginx, SecretHeader, Shows, SocketAddress, TakenOut,
};
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

/// A step of each kind of action.
fn every_action() -> Vec<Step> {
    let by_slot =
        |blue: &str, green: &str| BTreeMap::from([(slot("blue"), blue.into()), (slot("green"), green.into())]);
    let target = |url: &str| HttpTarget {
        more_secrets: Vec::new(),
        url: url.into(),
        headers: [("Content-Type".into(), "application/json".into())].into(),
        secret: Some(SecretHeader {
            name: "Authorization".into(),
            prefix: "Bearer ".into(),
            file: "/etc/token".into(),
        }),
        ca_file: Some("/etc/ca.crt".into()),
    };
    let served = HttpLook {
        target: target("http://127.0.0.1/slot"),
        shows: Shows::Pointer("/slot".into()),
        require: [("/weight".into(), "100".into())].into(),
    };
    let file = FileSet {
        path: "/etc/nginx/up.conf".into(),
        holds: by_slot("server 127.0.0.1:1;", "server 127.0.0.1:2;"),
        link: false,
    };
    let haproxy = Haproxy {
        address: SocketAddress::Unix("/run/haproxy/admin.sock".into()),
        backend: "app".into(),
        servers: [(slot("blue"), vec!["b1".into(), "b2".into()])].into(),
        others: TakenOut::Drain,
        end_sessions_after: Some(Span::from_secs(5)),
        state_file: Some("/var/lib/haproxy/state".into()),
    };
    let call = HttpCall {
        method: "PUT".into(),
        target: target("http://127.0.0.1/active"),
        body: Some("{\"slot\":\"$old\"}".into()),
        expect_status: vec![200, 204],
    };
    let nginx = Nginx {
        file: file.clone(),
        test: Some(Exec::new(["/usr/sbin/nginx", "-t"])),
        reload: Exec::new(["/usr/bin/systemctl", "reload", "nginx.service"]),
        served: served.clone(),
        live_within: Span::from_secs(5),
        words: by_slot("b", "g"),
    };
    let looks = [Look::Haproxy(haproxy.clone()), Look::File(file.clone()), Look::Http(served)];
    let with_env = Exec { env: [("HOME".into(), "/tmp".into())].into(), ..Exec::new(["/bin/true", "$old_word"]) };
    let actions = [
        Action::Haproxy(haproxy),
        Action::File(file),
        Action::Nginx(nginx),
        Action::Http(call),
        Action::Unit(Exec::new(["/bin/true"])),
        Action::Exec(with_env),
    ];
    let probes = looks.into_iter().map(Some).chain(std::iter::repeat(None));
    let make = |(action, look): (Action, Option<Look>)| Step {
        probe: look.map(|look| Probe { look, expect: Expect::Words(by_slot("b", "g")), timeout: Span::from_secs(2) }),
        limit: Some(Span::from_secs(60)),
        words: by_slot("b", "g"),
        when: When::AfterFailure,
        action,
        ..remedy(30)
    };
    actions.into_iter().zip(probes).map(make).collect()
}

/// Read by the store's own test. Until the first release a change of shape makes it anew; after it, a new
/// version of the records begins and this file stays.
#[test]
fn records_of_each_kind() {
    let mut w = World::new();
    w.kinds = Some(Kinds::default());
    let every = ServiceName::try_new("every-action").unwrap();
    let every = Service { name: every, plan: Plan { steps: every_action() }, ..w.service.clone() };
    w.put(Input::Configured { services: vec![w.service.clone(), every], brakes: Brakes::default() });
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
    let _ = w.hold(1, Hold::Pause { lasts: Span::from_secs(60) });
    let _ = w.drill(false);
    w.tried = vec![Tried {
        what: "step haproxy".into(),
        took: Span::from_millis(12),
        found: crate::domain::drill::Found::Good,
        text: "it can be run".into(),
    }];
    w.run_for(Span::from_secs(2));
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

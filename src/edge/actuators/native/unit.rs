//! A step that needs more than the daemon's sandbox runs as `flipback-rollback@….service`, under its own user and
//! limits. The unit's name carries names only; what is run is read from the configuration, which root owns: who
//! can start the unit chooses among the steps that are written there, and nothing else.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::config::{self, Overrides};
use crate::domain::action::{Action, Exec, Variables};
use crate::domain::service::Service;
use crate::domain::switch::{ServiceName, Slot};
use crate::edge::actuators::exec::CHILD_PATH;

const SYSTEMCTL: &str = "/usr/bin/systemctl";
const UNIT: &str = "flipback-rollback@";

/// Between the parts of an instance's name: no name of ours holds it.
const BETWEEN: char = '+';

/// What starts the unit and waits for its end.
pub fn command(service: &ServiceName, env: &BTreeMap<String, String>, step: &str) -> Exec {
    let of = |name: &str| env.get(name).map_or("", String::as_str);
    let parts = [service.as_str(), of("FLIPBACK_OLD"), of("FLIPBACK_NEW"), step];
    let instance = escape(&parts.join(&BETWEEN.to_string()));
    Exec::new([SYSTEMCTL, "start", "--wait", &format!("{UNIT}{instance}.service")])
}

/// The unit's own side: finds the step that its name means, and becomes it. Returns only if that fails.
pub fn run(instance: &str, config: &Path) -> i32 {
    let why = match find(instance, config) {
        Err(why) => why,
        Ok((exec, vars)) => {
            let (program, arguments) = exec.argv.split_first().unwrap_or((&exec.argv[0], &[]));
            let error = Command::new(program)
                .args(arguments)
                .env_clear()
                .env("PATH", CHILD_PATH)
                .envs(&exec.env)
                .env("FLIPBACK_SERVICE", &vars["service"])
                .env("FLIPBACK_OLD", &vars["old"])
                .env("FLIPBACK_NEW", &vars["new"])
                .current_dir("/")
                .exec();
            format!("{program}: {error}")
        }
    };
    eprintln!("flipback unit-step {instance}: {why}");
    1
}

fn find(instance: &str, config: &Path) -> Result<(Exec, Variables), String> {
    let parts: Vec<&str> = instance.splitn(4, BETWEEN).collect();
    let [service, old, new, step] = parts.as_slice() else {
        return Err("the instance is not SERVICE+OLD+NEW+STEP".into());
    };
    let settings = config::load(config, &Overrides::default()).map_err(|problems| problems.to_string())?;
    let known = settings.services.iter().find(|s| s.name.as_str() == *service);
    let service = known.ok_or_else(|| format!("there is no service {service} in {}", config.display()))?;
    let (old, new) = (slot_of(service, old)?, slot_of(service, new)?);
    let all = service.plan.steps.iter().chain(&service.after_passed.steps);
    for candidate in all.filter(|candidate| candidate.name == *step) {
        let Action::Unit(exec) = &candidate.action else { continue };
        let vars = candidate.variables(&service.name, &old, &new);
        return Ok((exec.resolve(&vars), vars));
    }
    Err(format!("{} has no step {step:?} with run_as = \"unit\"", service.name))
}

fn slot_of(service: &Service, name: &str) -> Result<Slot, String> {
    let slot = Slot::try_new(name).map_err(|why| why.to_string())?;
    if service.slots.knows(&slot) { Ok(slot) } else { Err(format!("{} has no slot {slot}", service.name)) }
}

/// systemd's own escaping of a unit's name (`systemd-escape`).
fn escape(text: &str) -> String {
    let mut out = String::new();
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            b'/' => out.push('-'),
            b'.' if i == 0 => out.push_str("\\x2e"),
            _ if byte.is_ascii_alphanumeric() || b":_.".contains(&byte) => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_named_by_the_attempts_own_words() {
        let env = [("FLIPBACK_OLD", "v1"), ("FLIPBACK_NEW", "v2")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        let exec = command(&ServiceName::try_new("checkout").unwrap(), &env, "kamal");
        let unit = "flipback-rollback@checkout\\x2bv1\\x2bv2\\x2bkamal.service";
        assert_eq!(exec.argv, ["/usr/bin/systemctl", "start", "--wait", unit]);
    }

    #[test]
    fn names_are_escaped_as_systemd_does() {
        // From `systemd-escape`, version 252.
        assert_eq!(escape("checkout+blue+green+move it"), "checkout\\x2bblue\\x2bgreen\\x2bmove\\x20it");
        assert_eq!(escape("a/b-c.d:e_f"), "a-b\\x2dc.d:e_f");
        assert_eq!(escape(".hidden"), "\\x2ehidden");
    }
}

//! The systemd unit, by systemd's own tools.

use std::fs;
use std::process::Command;

use crate::stack::program;

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/flipback.service");

/// The unit with a program that is there: `verify` looks for it.
fn copy(dir: &std::path::Path) -> std::path::PathBuf {
    let text = fs::read_to_string(UNIT).unwrap();
    assert!(text.contains("ExecStart=/usr/bin/flipback run"), "the copy must replace the real line");
    let path = dir.join("flipback.service");
    fs::write(&path, text.replace("/usr/bin/flipback", env!("CARGO_BIN_EXE_flipback"))).unwrap();
    path
}

#[test]
fn systemd_finds_nothing_to_say_about_the_unit() {
    let dir = tempfile::tempdir().unwrap();
    // It exits 0 on warnings: any output is a failure.
    let done =
        Command::new(program("systemd-analyze")).args(["verify", "--man=no"]).arg(copy(dir.path())).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn the_unit_is_exposed_by_at_most_a_point_and_a_half() {
    let dir = tempfile::tempdir().unwrap();
    let done = Command::new(program("systemd-analyze"))
        .args(["security", "--offline=true", "--no-pager", "--threshold=15"])
        .arg(copy(dir.path()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    let line = said.lines().find(|l| l.contains("Overall exposure level")).unwrap_or_else(|| panic!("{said}"));
    println!("{line}");
    let score: f64 = line.split_whitespace().find_map(|w| w.parse().ok()).unwrap();
    assert!(done.status.success() && score <= 1.5, "{line}");
}

/// Every unit that is shipped, with a program that is there.
#[test]
fn systemd_finds_nothing_to_say_about_the_units_of_least_privilege() {
    let dir = tempfile::tempdir().unwrap();
    let from = std::path::Path::new(UNIT).parent().unwrap();
    for name in ["flipback-rollback@.service", "flipback-nginx.path", "flipback-nginx.service"] {
        let text = fs::read_to_string(from.join(name)).unwrap();
        fs::write(dir.path().join(name), text.replace("/usr/bin/flipback", env!("CARGO_BIN_EXE_flipback"))).unwrap();
    }
    for name in ["flipback-rollback@x.service", "flipback-nginx.path"] {
        let mut command = Command::new(program("systemd-analyze"));
        let done = command.args(["verify", "--man=no"]).arg(dir.path().join(name)).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success() && said.trim().is_empty(), "{name}: {said}");
    }
}

/// polkit itself, on a bus of its own, with the shipped rules in the place of the host's: another user's name stands
/// for flipback's.
#[test]
fn polkit_allows_what_a_step_needs_and_nothing_more() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let rules = dir.path().join("rules");
    fs::create_dir(&rules).unwrap();
    fs::set_permissions(&rules, fs::Permissions::from_mode(0o755)).unwrap();
    let from = std::path::Path::new(UNIT).parent().unwrap();
    for name in ["flipback-nginx.rules", "flipback-rollback.rules"] {
        let text = fs::read_to_string(from.join(name)).unwrap();
        assert!(text.contains("subject.user == \"flipback\""));
        let path = rules.join(format!("50-{name}"));
        fs::write(&path, text.replace("subject.user == \"flipback\"", "subject.user == \"nobody\"")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let bus = "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
        \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n<busconfig><type>system</type>\
        <listen>unix:path=@D@/bus</listen><auth>EXTERNAL</auth><policy context=\"default\"><allow send_destination=\"*\"/>\
        <allow receive_sender=\"*\"/><allow own=\"*\"/><allow user=\"*\"/></policy></busconfig>";
    let d = dir.path().display().to_string();
    fs::write(dir.path().join("bus.conf"), bus.replace("@D@", &d)).unwrap();
    // A mount namespace of its own: the host's rules are not touched.
    let script = r#"
mount --bind "$1/rules" /etc/polkit-1/rules.d
export DBUS_SYSTEM_BUS_ADDRESS="unix:path=$1/bus"
dbus-daemon --config-file="$1/bus.conf" --nofork --nopidfile 2>/dev/null & bus=$!
for i in $(seq 100); do [ -S "$1/bus" ] && break; sleep 0.1; done
/usr/lib/polkit-1/polkitd --no-debug >"$1/polkitd.log" 2>&1 & polkit=$!
for i in $(seq 100); do dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.NameHasOwner string:org.freedesktop.PolicyKit1 2>/dev/null | grep -q true && break; sleep 0.1; done
setpriv --reuid=nobody --regid=nogroup --clear-groups sleep 60 & subject=$!
for i in $(seq 100); do grep -q setpriv "/proc/$subject/comm" || break; sleep 0.1; done
while read -r verb unit; do
    pkcheck --action-id org.freedesktop.systemd1.manage-units --process "$subject" --detail unit "$unit" --detail verb "$verb" >/dev/null 2>&1
    echo "$verb $unit $?"
done <<'ASKED'
reload nginx.service
restart nginx.service
stop nginx.service
reload ssh.service
start flipback-rollback@checkout\x2bblue\x2bgreen\x2bkamal.service
stop flipback-rollback@checkout\x2bblue\x2bgreen\x2bkamal.service
start flipback.service
ASKED
kill "$subject" "$polkit" "$bus"
"#;
    fs::write(dir.path().join("script"), script).unwrap();
    let done = Command::new(program("unshare"))
        .args(["--mount", "bash"])
        .arg(dir.path().join("script"))
        .arg(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    let log = fs::read_to_string(dir.path().join("polkitd.log")).unwrap_or_default();
    let answers: Vec<&str> = said.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    // 0: allowed; 2: somebody would have to authenticate.
    assert_eq!(answers, ["0", "2", "2", "2", "0", "2", "2"], "{said}{log}{}", String::from_utf8_lossy(&done.stderr));
}

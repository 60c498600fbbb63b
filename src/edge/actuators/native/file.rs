//! A file (or a link) that says where the traffic is: replaced whole, durably, with its mode kept.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::domain::action::FileSet;
use crate::domain::switch::Slot;

/// Such a file has a few lines.
const SIZE_MAX: u64 = 1024 * 1024;

/// What was there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    Nothing,
    Text(String),
    Link(PathBuf),
}

pub fn act(set: &FileSet, to: &Slot) -> Result<(), String> {
    let wanted = wanted(set, to)?;
    if read(&set.path)? == wanted {
        println!("{} holds it already", set.path.display());
        return Ok(());
    }
    put(&set.path, &wanted)?;
    println!("{} is written (for {to})", set.path.display());
    Ok(())
}

/// The slot for which the file holds what it holds, or its first line.
pub fn look(set: &FileSet) -> Result<String, String> {
    let held = read(&set.path)?;
    // The same for every slot is a flag, which shows no slot.
    let mut texts = set.holds.values();
    let is_flag = texts.next().is_some_and(|first| set.holds.len() > 1 && texts.all(|text| text == first));
    let of_slot = |slot: &&Slot| !is_flag && wanted(set, slot).is_ok_and(|wanted| wanted == held);
    let slot = set.holds.keys().find(of_slot);
    match (slot, held) {
        (Some(slot), _) => Ok(slot.to_string()),
        // A state that can be read: whatever should stand there does not.
        (None, Held::Nothing) => Ok("(no such file)".into()),
        (None, Held::Link(target)) => Ok(target.display().to_string()),
        (None, Held::Text(text)) => {
            let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
            Ok(line.chars().take(200).collect())
        }
    }
}

pub fn wanted(set: &FileSet, to: &Slot) -> Result<Held, String> {
    let text = set.holds.get(to).ok_or_else(|| format!("{}: nothing is configured for {to}", set.path.display()))?;
    Ok(if set.link { Held::Link(PathBuf::from(text)) } else { Held::Text(format!("{}\n", text.trim_end())) })
}

pub fn read(path: &Path) -> Result<Held, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Held::Nothing),
        Err(error) => Err(failed(error)),
        Ok(meta) if meta.is_symlink() => Ok(Held::Link(fs::read_link(path).map_err(failed)?)),
        Ok(meta) if meta.len() > SIZE_MAX => Err(format!("{} is larger than 1 MiB", path.display())),
        Ok(meta) if !meta.is_file() => Err(format!("{} is no file", path.display())),
        Ok(_) => {
            let text = fs::read_to_string(path).map_err(failed)?;
            Ok(Held::Text(format!("{}\n", text.trim_end())))
        }
    }
}

/// In one step: whoever opens the path finds the old or the new, never half of one.
pub fn put(path: &Path, held: &Held) -> Result<(), String> {
    replace(path, held).map_err(|error| format!("{}: {error}", path.display()))
}

fn replace(path: &Path, held: &Held) -> std::io::Result<()> {
    let dir = path.parent().ok_or(ErrorKind::InvalidInput)?;
    let partial = beside(path, "new")?;
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match held {
        Held::Nothing => match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => return File::open(dir)?.sync_all(),
        },
        Held::Link(target) => symlink(target, &partial)?,
        Held::Text(text) => {
            let mut file = File::create_new(&partial)?;
            file.write_all(text.as_bytes())?;
            if let Ok(old) = fs::metadata(path) {
                file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
                // Only root may give it away; for others the directory's group is what counts.
                let _ = std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()));
            } else {
                // A server that runs as somebody else reads it.
                file.set_permissions(fs::Permissions::from_mode(0o644))?;
            }
            file.sync_all()?;
        }
    }
    fs::rename(&partial, path)?;
    File::open(dir)?.sync_all()
}

/// A hidden name in the same directory: no include of `*.conf` reads it.
pub fn beside(path: &Path, what: &str) -> std::io::Result<PathBuf> {
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".flipback-{what}"));
    Ok(path.with_file_name(hidden))
}

/// Whether the path could be replaced now: a file beside it can be made and taken away.
pub fn can_replace(path: &Path) -> Result<(), String> {
    let trial = beside(path, "trial").map_err(|error| format!("{}: {error}", path.display()))?;
    let made = File::create(&trial).and_then(|_| fs::remove_file(&trial));
    made.map_err(|error| {
        let dir = path.parent().unwrap_or(path).display().to_string();
        format!("{} cannot be replaced: no file can be made in {dir}: {error}", path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(name: &str) -> Slot {
        Slot::try_new(name).unwrap()
    }

    fn set(path: PathBuf, link: bool) -> FileSet {
        let holds = [("blue", "server 127.0.0.1:1;"), ("green", "server 127.0.0.1:2;")];
        FileSet { path, link, holds: holds.map(|(s, h)| (slot(s), h.to_owned())).into() }
    }

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let set = set(dir.path().join("up.conf"), false);
        assert_eq!(look(&set).unwrap(), "(no such file)");
        act(&set, &slot("green")).unwrap();
        fs::set_permissions(&set.path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(look(&set).unwrap(), "green");
        act(&set, &slot("blue")).unwrap();
        assert_eq!(look(&set).unwrap(), "blue");
        assert_eq!(fs::metadata(&set.path).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        fs::write(&set.path, "\n# by hand\nserver 9;\n").unwrap();
        assert_eq!(look(&set).unwrap(), "# by hand");
        assert!(act(&set, &slot("red")).unwrap_err().contains("nothing is configured for red"));
    }

    #[test]
    fn a_link_is_replaced_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let set = set(dir.path().join("current"), true);
        act(&set, &slot("blue")).unwrap();
        act(&set, &slot("green")).unwrap();
        assert_eq!(look(&set).unwrap(), "green");
        assert_eq!(fs::read_link(&set.path).unwrap(), PathBuf::from("server 127.0.0.1:2;"));
        assert!(can_replace(&set.path).is_ok());
        assert!(can_replace(Path::new("/proc/no/such")).unwrap_err().contains("cannot be replaced"));
    }
}

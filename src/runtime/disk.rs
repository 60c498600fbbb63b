//! Room for the journal: a reserve on the same disk, so that what is open can be brought to its end after
//! everything else has filled it.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::edge::systemd::Progress;
use crate::journal::{Batch, Journal, JournalError};

use super::turn::Store;

/// What is set aside: thousands of ticks, every rollback's outputs and all notices of a bad night.
pub const RESERVE: u64 = 64 * 1024 * 1024;

const RESERVE_FILE: &str = "reserve";

/// The journal on its disk.
pub struct Disk {
    pub journal: Journal,
    dir: PathBuf,
    reserve: u64,
    progress: Progress,
}

impl Disk {
    pub fn new(journal: Journal, dir: &Path, progress: Progress) -> Disk {
        let mut disk = Disk { journal, dir: dir.to_owned(), reserve: RESERVE, progress };
        disk.keep_reserve();
        disk
    }

    /// Whether new events must wait: the reserve is not there and cannot be made. Makes it where it can.
    pub fn is_low(&mut self) -> bool {
        !self.keep_reserve()
    }

    /// True when the reserve is on disk.
    fn keep_reserve(&mut self) -> bool {
        let path = self.dir.join(RESERVE_FILE);
        if fs::metadata(&path).is_ok_and(|meta| meta.len() >= self.reserve) {
            return true;
        }
        // As much again must stay free: a reserve that fills the disk would make what it is there against.
        let free = free_space(&self.dir).unwrap_or(0);
        if free < self.reserve * 2 {
            return false;
        }
        let made = OpenOptions::new().create(true).truncate(true).write(true).open(&path).and_then(|file| {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, self.reserve)?;
            file.sync_all()
        });
        if let Err(error) = &made {
            tracing::warn!(%error, file = %path.display(), "the journal's reserve cannot be set aside");
            let _ = fs::remove_file(&path);
        }
        made.is_ok()
    }

    fn release_reserve(&self) {
        let path = self.dir.join(RESERVE_FILE);
        if path.exists() && fs::remove_file(&path).and_then(|()| File::open(&self.dir)?.sync_all()).is_ok() {
            tracing::error!("no space left for the journal: its reserve is released");
        }
    }
}

fn free_space(dir: &Path) -> Option<u64> {
    let fs = rustix::fs::statvfs(dir).ok()?;
    Some(fs.f_bavail.saturating_mul(fs.f_frsize))
}

impl Store for Disk {
    /// A full disk is met with the reserve, and then waited out a little: the statement was rolled back and
    /// nothing is half there.
    fn commit(&mut self, batch: &Batch<'_>) -> Result<(), JournalError> {
        const TRIES: u32 = 20;
        const APART: Duration = Duration::from_millis(500);
        let mut tries = 0;
        loop {
            match self.journal.commit(batch) {
                Err(JournalError::Full) if tries < TRIES => {
                    tries += 1;
                    if tries == 1 {
                        self.release_reserve();
                    } else {
                        tracing::error!(tries, "no space left for the journal");
                        std::thread::sleep(APART);
                    }
                    self.progress.made();
                }
                done => return done,
            }
        }
    }
}

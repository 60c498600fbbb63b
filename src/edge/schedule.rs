//! Cron jobs: each only sends an input. Soak deadlines never depend on them.

use std::sync::Arc;

use tokio_cron_scheduler::{Job as CronJob, JobScheduler, JobSchedulerError};

use super::inbox::Inbox;
use crate::engine::message::{Input, Job};

/// Whether a text is a schedule: six fields, seconds first.
pub fn is_schedule(cron: &str) -> bool {
    CronJob::new(cron, |_, _| {}).is_ok()
}

/// Starts the jobs; the scheduler lives as long as it is held. `drills`: when the ways back are practised, if at all;
/// `digest`: when, and what posts it.
pub async fn start(
    inbox: &Inbox,
    drills: Option<&str>,
    digest: Option<(String, Arc<dyn Fn() + Send + Sync>)>,
) -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    // Away from the full minute, when everything else runs too.
    let jobs = [("20 * * * * *", Job::RecordBaseline), ("50 7 * * * *", Job::Prune)];
    for (cron, job) in jobs.into_iter().chain(drills.map(|cron| (cron, Job::Drill))) {
        let inbox = inbox.clone();
        scheduler
            .add(CronJob::new(cron, move |_, _| {
                if let Err(error) = inbox.tell(Input::Cron { job }) {
                    tracing::warn!(?job, ?error, "a cron job was left out");
                }
            })?)
            .await?;
    }
    if let Some((cron, post)) = digest {
        let job = CronJob::new(cron.as_str(), move |_, _| {
            // It reads the journal: beside the scheduler's own thread.
            let post = post.clone();
            tokio::task::spawn_blocking(move || post());
        })?;
        scheduler.add(job).await?;
    }
    scheduler.start().await?;
    Ok(scheduler)
}

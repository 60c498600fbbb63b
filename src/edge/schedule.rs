//! Cron jobs: each only sends an input. Soak deadlines never depend on them.

use tokio_cron_scheduler::{Job as CronJob, JobScheduler, JobSchedulerError};

use super::inbox::Inbox;
use crate::engine::message::{Input, Job};

/// Starts the jobs; the scheduler lives as long as it is held.
pub async fn start(inbox: &Inbox) -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    // Away from the full minute, when everything else runs too.
    for (cron, job) in [("20 * * * * *", Job::RecordBaseline), ("50 7 * * * *", Job::Prune)] {
        let inbox = inbox.clone();
        scheduler
            .add(CronJob::new(cron, move |_, _| {
                if let Err(error) = inbox.tell(Input::Cron { job }) {
                    tracing::warn!(?job, ?error, "a cron job was left out");
                }
            })?)
            .await?;
    }
    scheduler.start().await?;
    Ok(scheduler)
}

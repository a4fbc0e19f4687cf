//! What to do next with a job.

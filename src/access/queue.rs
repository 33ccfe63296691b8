//! Events of IAM and EKS from an SQS queue that an EventBridge rule fills: reasons to look at once instead of with the
//! next cycle.
//!
//! A message only says that something has changed; what is true is read anew. So whoever can write to the queue can wake
//! access, and nothing more. Messages are deleted after the cycle that they caused: one that dies in between is followed
//! by another.

mod event;

use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, Message};

use self::event::Heard;
use super::aws::{Aws, fault};
use super::seam::Fault;

pub use self::event::{Event, Service};

/// As long as SQS lets anybody wait.
const WAIT: i32 = 20;
/// Longer than a cycle.
const HIDDEN: Duration = Duration::from_secs(600);
/// As many as SQS gives and takes at once.
const MOST: usize = 10;
/// Of messages that one cycle answers: a hundred people moved at once are one cycle.
const ROUNDS: usize = 30;

#[derive(Clone, Debug)]
pub struct Queue {
    client: Client,
    url: String,
    own: Option<String>,
}

/// What the queue had, to be given back to `done`.
#[derive(Debug, Default)]
pub struct Batch {
    pub events: Vec<Event>,
    receipts: Vec<String>,
}

impl Queue {
    /// `own`: the ARN of access's identity, whose own changes wake nobody.
    pub fn new(aws: &Aws, url: &str, own: Option<String>) -> Self {
        Self { client: aws.sqs(region_of(url)), url: url.to_owned(), own }
    }

    /// Waits for 20 s at most, and returns with all that came; with nothing, if nothing did. What is no event or not
    /// about access is deleted here.
    pub async fn wait(&self) -> Result<Batch, Fault> {
        let mut batch = Batch::default();
        for round in 0..ROUNDS {
            let messages = match self.receive(if round == 0 { WAIT } else { 0 }).await {
                Ok(messages) if messages.is_empty() => break,
                Ok(messages) => messages,
                Err(fault) if batch.events.is_empty() => return Err(fault),
                // What came before is acted on.
                Err(_) => break,
            };
            let rest = self.sort(messages, &mut batch);
            self.delete(&rest).await;
            if batch.events.is_empty() {
                break;
            }
        }
        Ok(batch)
    }

    /// After the cycle that these events caused.
    pub async fn done(&self, batch: Batch) {
        self.delete(&batch.receipts).await;
    }

    async fn receive(&self, wait: i32) -> Result<Vec<Message>, Fault> {
        let asked = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(MOST).unwrap_or(1))
            .wait_time_seconds(wait)
            .visibility_timeout(i32::try_from(HIDDEN.as_secs()).unwrap_or(i32::MAX));
        Ok(asked.send().await.map_err(|error| fault(&error))?.messages.unwrap_or_default())
    }

    /// Keeps what is an event; returns the receipts of the rest.
    fn sort(&self, messages: Vec<Message>, batch: &mut Batch) -> Vec<String> {
        let mut rest = Vec::new();
        for message in messages {
            let receipt = message.receipt_handle.unwrap_or_default();
            match event::heard(&message.body.unwrap_or_default()) {
                Heard::Event(event) if self.own.is_none() || event.by != self.own => {
                    batch.events.push(event);
                    batch.receipts.push(receipt);
                }
                Heard::Event(_) | Heard::Nothing => rest.push(receipt),
                Heard::Malformed(why) => {
                    let id = message.message_id.unwrap_or_default();
                    tracing::warn!(id, "a message of the queue is not an event of EventBridge and is deleted: {why}");
                    rest.push(receipt);
                }
            }
        }
        rest
    }

    /// What cannot be deleted comes again, and does no harm.
    async fn delete(&self, receipts: &[String]) {
        for some in receipts.chunks(MOST) {
            let entry = |(number, receipt): (usize, &String)| {
                DeleteMessageBatchRequestEntry::builder().id(number.to_string()).receipt_handle(receipt).build().ok()
            };
            let entries = some.iter().enumerate().filter_map(entry).collect();
            let asked = self.client.delete_message_batch().queue_url(&self.url).set_entries(Some(entries));
            match asked.send().await {
                Ok(said) if said.failed.is_empty() => {}
                Ok(said) => tracing::warn!(failed = said.failed.len(), "the queue did not delete all messages"),
                Err(error) => {
                    let refused = fault(&error);
                    tracing::warn!(code = refused.code, "the queue did not delete messages: {}", refused.message);
                }
            }
        }
    }
}

/// A queue is often elsewhere: IAM's events come in one region of each partition only.
fn region_of(url: &str) -> Option<&str> {
    let host = url.split("://").nth(1)?.split('/').next()?;
    let mut labels = host.split('.');
    match (labels.next()?, labels.next()?) {
        ("sqs", region) => Some(region),
        (region, "queue") => Some(region),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_in_the_region_of_its_url() {
        let region = |url| region_of(url).unwrap_or("none");
        assert_eq!(region("https://sqs.us-east-1.amazonaws.com/123456789012/stockade"), "us-east-1");
        assert_eq!(region("https://sqs.cn-north-1.amazonaws.com.cn/123456789012/stockade"), "cn-north-1");
        assert_eq!(region("https://eu-west-1.queue.amazonaws.com/123456789012/stockade"), "eu-west-1");
        for other in ["http://127.0.0.1:5000/123456789012/stockade", "stockade", "", "https://"] {
            assert_eq!(region(other), "none", "{other}");
        }
    }
}

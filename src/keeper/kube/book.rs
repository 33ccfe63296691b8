//! What is recorded of a stream: from what its two sides said to events. Does no I/O.

use bytes::Bytes;

use super::wire::{Garbled, Lane, Said};
use super::words::{Judgement, Sizes, Verdict};
use crate::keeper::Settings;
use crate::keeper::bulk::Meter;
use crate::keeper::ends::SMALL;
use crate::keeper::redact::{Echo, InputPolicy, Redaction};
use crate::privsep::message::Number;
use crate::recording::{Direction, Event};
use crate::session::channel_name;

/// A terminal in a container cannot be asked whether it echoes. As in one whose program edits its own lines, only what
/// follows a prompt is withheld.
const UNKNOWN: Echo = Echo { echo: false, canonical: false };

#[derive(Debug)]
pub(super) struct Book {
    number: Number,
    policy: InputPolicy,
    /// Of a terminal.
    redaction: Option<Redaction>,
    input: Meter,
    output: Meter,
    error: Meter,
    sizes: Sizes,
    judgement: Judgement,
    input_ended: bool,
    pub(super) verdict: Option<Verdict>,
}

impl Book {
    pub(super) fn new(number: Number, terminal: bool, settings: &Settings) -> Self {
        // As with a channel, a terminal's bytes are recorded whole.
        let limit = if terminal { u64::MAX } else { settings.bulk_after };
        Self {
            number,
            policy: settings.input,
            redaction: terminal.then(|| Redaction::new(settings.input, settings.prompts.clone())),
            input: Meter::new(number, Direction::Input, limit),
            output: Meter::new(number, Direction::Output, limit),
            error: Meter::new(number, Direction::ErrorOutput, limit),
            sizes: Sizes::default(),
            judgement: Judgement::default(),
            input_ended: false,
            verdict: None,
        }
    }

    /// Adds what is recorded of `said`.
    pub(super) fn write(&mut self, said: Said, events: &mut Vec<Event>) -> Result<(), Garbled> {
        match said {
            Said::Data(Lane::Input, data) => self.write_input(data, events),
            Said::Data(lane @ (Lane::Output | Lane::ErrorOutput), data) => self.write_output(lane, data, events),
            Said::Data(Lane::Sizes, data) => {
                for (columns, rows) in self.sizes.take(&data)? {
                    events.push(Event::Resize { number: self.number, columns, rows, width: 0, height: 0 });
                }
            }
            Said::Data(Lane::Verdict, data) => {
                let verdict = self.judgement.take(&data);
                self.judge(verdict, events);
            }
            Said::End(Lane::Input) if !self.input_ended => {
                self.input_ended = true;
                events.extend(self.input.rest());
                events.push(Event::InputEnd { number: self.number });
            }
            Said::End(Lane::Verdict) => {
                let verdict = self.judgement.end();
                self.judge(verdict, events);
            }
            Said::End(_) => {}
        }
        Ok(())
    }

    /// What is left when nothing more is said.
    pub(super) fn end(&mut self, events: &mut Vec<Event>) {
        events.extend([self.input.rest(), self.output.rest(), self.error.rest()].into_iter().flatten());
        let verdict = self.judgement.end();
        self.judge(verdict, events);
    }

    fn write_input(&mut self, mut data: Bytes, events: &mut Vec<Event>) {
        let why = match &mut self.redaction {
            Some(redaction) => redaction.withhold(&data, UNKNOWN),
            None => (self.policy == InputPolicy::None).then_some("policy"),
        };
        let whole = self.input.whole(&mut data);
        let (number, bytes) = (self.number, whole.len() as u64);
        match why {
            _ if whole.is_empty() => {}
            Some(why) => events.push(Event::InputRedacted { number, bytes, why: why.to_owned() }),
            None => events.push(Event::Input { number, data: kept(whole) }),
        }
        events.extend(self.input.digest(&data));
    }

    fn write_output(&mut self, lane: Lane, mut data: Bytes, events: &mut Vec<Event>) {
        if let Some(redaction) = &mut self.redaction {
            redaction.shown(&data);
        }
        let number = self.number;
        let meter = if lane == Lane::Output { &mut self.output } else { &mut self.error };
        let whole = meter.whole(&mut data);
        match lane {
            _ if whole.is_empty() => {}
            Lane::Output => events.push(Event::Output { number, data: kept(whole) }),
            _ => events.push(Event::ErrorOutput { number, data: kept(whole) }),
        }
        events.extend(meter.digest(&data));
    }

    fn judge(&mut self, verdict: Option<Verdict>, events: &mut Vec<Event>) {
        let Some(verdict) = verdict else { return };
        events.push(match &verdict {
            Verdict::Exit(status) => Event::ExitStatus { number: self.number, status: *status },
            Verdict::Failed(why) => Event::Note { text: format!("{}: {why}", channel_name(self.number)) },
        });
        self.verdict = Some(verdict);
    }
}

/// A short piece does not hold on to everything that it was read with.
fn kept(data: Bytes) -> Bytes {
    if data.len() < SMALL { Bytes::copy_from_slice(&data) } else { data }
}

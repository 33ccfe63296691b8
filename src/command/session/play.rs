use std::io::{self, IsTerminal, Stdin, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::recording::{Channel, Drawing, Event, Pace, Store};

/// See `stockade session play --help`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The session's id, or a beginning of it that only one has
    id: String,
    /// The channel (c1, c2, …; k1, k2, … are streams on clusters); the first with a terminal unless named
    #[arg(long, value_name = "CHANNEL", value_parser = super::channel_number)]
    channel: Option<u32>,
    /// How many times as fast
    #[arg(long, default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// Show what lies before at once (90, 1m30s, 1h2m)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    seek: Option<Duration>,
    /// Let no pause be longer (2s, 500ms)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    idle_limit: Option<Duration>,
}

fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if speed.is_finite() && speed > 0.0 { Ok(speed) } else { Err("a speed is above zero".to_owned()) }
}

/// `90`, `1m30s`, `500ms`, `1.5s`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a time; write 90, 1m30s or 500ms");
    let mut rest = text.trim();
    let mut seconds = 0.0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at_checked(end).ok_or_else(wrong)?;
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit).ok_or_else(wrong)?;
        seconds += number
            * match unit {
                "" | "s" => 1.0,
                "ms" => 0.001,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(wrong()),
            };
        rest = after;
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// Shows one channel, at its pace, through the filter.
pub(super) fn run(store: &Store, args: &Args, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let session = super::find(store, &args.id)?;
    let channel = super::choose(store, session, args.channel)?;
    let reader = super::open(store, session)?;
    warn_of_size(&channel);
    let mut screen = Screen { out, drawing: Drawing::new(), restore: io::stdout().is_terminal() };
    let mut keys = Keys::new();
    // Times are the session's, so that `--seek` means what `show` prints; a channel begins at once.
    let seek = args.seek.unwrap_or_default().max(channel.opened);
    let mut pace = Pace::new(args.speed, seek, args.idle_limit);
    for recorded in reader {
        let recorded = recorded?;
        let (Event::Output { number, data } | Event::ErrorOutput { number, data }) = recorded.event else { continue };
        if number != channel.number {
            continue;
        }
        let text = screen.drawing.filter(&data);
        let wait = pace.wait(recorded.at);
        if !wait.is_zero() {
            screen.out.flush()?;
            if keys.wait(wait)? == Wish::End {
                break;
            }
        }
        screen.out.write_all(text.as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn warn_of_size(channel: &Channel) {
    let (Some(terminal), Ok(size)) = (&channel.terminal, tcgetwinsize(io::stdout())) else { return };
    if size.ws_col < terminal.columns || size.ws_row < terminal.rows {
        let (columns, rows) = (terminal.columns, terminal.rows);
        eprintln!("stockade: it was recorded on {columns}x{rows}; this terminal is {}x{}", size.ws_col, size.ws_row);
    }
}

/// The reviewer's terminal, which is theirs again at the end.
struct Screen<'a, W: Write> {
    out: &'a mut W,
    drawing: Drawing,
    restore: bool,
}

impl<W: Write> Drop for Screen<'_, W> {
    fn drop(&mut self) {
        if self.restore {
            let _ = write!(self.out, "{}\r\n", self.drawing.restore());
        }
        let _ = self.out.flush();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Go,
    End,
}

/// The reviewer's keys, read one by one while it plays. Without a terminal there are none.
struct Keys {
    stdin: Stdin,
    before: Option<Termios>,
}

impl Keys {
    fn new() -> Self {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin).ok();
        if let Some(before) = &before {
            let mut single = before.clone();
            single.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
            single.special_codes[SpecialCodeIndex::VMIN] = 0;
            single.special_codes[SpecialCodeIndex::VTIME] = 0;
            let _ = tcsetattr(&stdin, OptionalActions::Flush, &single);
        }
        Self { stdin, before }
    }

    /// Waits so long, or as long as the reviewer pauses, or until they end it.
    fn wait(&mut self, wait: Duration) -> io::Result<Wish> {
        if self.before.is_none() {
            std::thread::sleep(wait);
            return Ok(Wish::Go);
        }
        let mut left = wait;
        let mut paused = false;
        loop {
            let began = Instant::now();
            let key = self.key((!paused).then_some(left))?;
            if !paused {
                left = left.saturating_sub(began.elapsed());
            }
            match key {
                Some(b'q' | b'Q' | 0x03 | 0x04) => return Ok(Wish::End),
                Some(b' ') => paused = !paused,
                _ if !paused && left.is_zero() => return Ok(Wish::Go),
                _ => {}
            }
        }
    }

    /// The next key within `limit`.
    fn key(&mut self, limit: Option<Duration>) -> io::Result<Option<u8>> {
        let limit = limit.map(|limit| Timespec {
            tv_sec: limit.as_secs().min(1 << 30) as i64,
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        match poll(&mut [PollFd::new(&self.stdin, PollFlags::IN)], limit.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        let mut key = [0];
        match rustix::io::read(&self.stdin, &mut key) {
            // The terminal is gone.
            Ok(0) => Ok(Some(b'q')),
            Ok(_) => Ok(Some(key[0])),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(&self.stdin, OptionalActions::Flush, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        let ms = Duration::from_millis;
        for (text, time) in
            [("90", ms(90_000)), ("1m30s", ms(90_000)), ("500ms", ms(500)), ("1.5s", ms(1500)), ("1h2m", ms(3_720_000))]
        {
            assert_eq!(duration(text), Ok(time), "{text}");
        }
        for bad in ["", "s", "1x", "-1", "1m-2s", "1.2.3", "1e9", "99999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(speed("0").is_err() && speed("NaN").is_err() && speed("2").is_ok());
    }
}

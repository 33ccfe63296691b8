//! What a process asks to execute, read from its memory.

use crate::recording::Exec;
use crate::sys::memory;
use crate::sys::notify::Attempt;

const LONGEST_PATH: usize = 4096;
const LONGEST_ARGUMENT: usize = 4096;
const LONGEST_ARGUMENTS: usize = 16 * 1024;
const MOST_ARGUMENTS: usize = 256;
const PAGE: u64 = 4096;

/// Path and arguments as far as they can be read; an unreadable path is an empty one.
pub fn read(attempt: &Attempt) -> Exec {
    let [first, second, third, ..] = attempt.arguments;
    let (path, arguments) =
        if i64::from(attempt.call) == libc::SYS_execveat { (second, third) } else { (first, second) };
    Exec { pid: attempt.pid, path: text(attempt.pid, path, LONGEST_PATH), arguments: strings(attempt.pid, arguments) }
}

fn strings(pid: u32, mut pointers: u64) -> Vec<String> {
    let mut all = Vec::new();
    let mut budget = LONGEST_ARGUMENTS;
    while all.len() < MOST_ARGUMENTS && budget > 0 {
        let mut pointer = [0; 8];
        match memory::read(pid, pointers, &mut pointer) {
            Ok(8) if pointer != [0; 8] => {}
            _ => break,
        }
        let argument = text(pid, u64::from_ne_bytes(pointer), LONGEST_ARGUMENT.min(budget));
        budget -= argument.len().max(1).min(budget);
        all.push(argument);
        pointers += 8;
    }
    all
}

/// A string up to its NUL or to `longest`, page by page: the next page may not be mapped.
fn text(pid: u32, mut address: u64, longest: usize) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < longest {
        let to_page_end = usize::try_from(PAGE - address % PAGE).unwrap_or(1);
        let mut part = vec![0; to_page_end.min(longest - bytes.len())];
        let Ok(got) = memory::read(pid, address, &mut part) else { break };
        let part = part.get(..got).unwrap_or_default();
        if let Some(end) = part.iter().position(|byte| *byte == 0) {
            bytes.extend(part.iter().take(end));
            break;
        }
        bytes.extend(part);
        address = address.saturating_add(got as u64);
        if got == 0 {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_read_from_memory() {
        let (path, word) = (c"/bin/echo", c"hello");
        let argv = [path.as_ptr(), word.as_ptr(), std::ptr::null()];
        let arguments = [path.as_ptr() as u64, argv.as_ptr() as u64, 0, 0, 0, 0];
        let call = i32::try_from(libc::SYS_execve).unwrap();
        let exec = read(&Attempt { id: 1, pid: std::process::id(), call, arguments });
        assert_eq!((exec.path.as_str(), exec.arguments), ("/bin/echo", vec!["/bin/echo".into(), "hello".into()]));
    }

    #[test]
    fn pointers_into_nowhere_are_empty() {
        let exec =
            read(&Attempt { id: 1, pid: std::process::id(), call: 59, arguments: [8, u64::MAX - 3, 0, 0, 0, 0] });
        assert_eq!((exec.path.as_str(), exec.arguments.len()), ("", 0));
    }
}

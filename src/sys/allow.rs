//! An allow list of system calls as a seccomp program.
//!
//! A tree over ranges of numbers, not a chain of comparisons: when a filter is installed the kernel runs it once for every
//! number there is, and for a chain of 300 calls that takes longer than all namespaces of a jail.

use std::collections::BTreeMap;
use std::io;

use super::seccomp::{ALLOW, Instruction, JUMP_EQUAL, JUMP_GREATER_OR_EQUAL, LOAD, NUMBER_AT, RETURN, jump, step};

const AND: u16 = 0x54;
const EPERM: u32 = 0x0005_0000 | libc::EPERM as u32;
/// `seccomp_data.args`, the low half of each.
const ARGUMENTS_AT: u32 = 16;

/// A condition on one argument, compared as the 32 bits that the kernel takes of it: a comparison of 64 would let through
/// a number with a bit above them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum If {
    Is(u8, u32),
    IsNot(u8, u32),
    /// These bits of it are this number.
    Masked(u8, u32, u32),
}

/// Which calls are allowed, and with which arguments; all others answer EPERM.
#[derive(Clone, Debug, Default)]
pub struct AllowList {
    /// The ways in which a call is allowed, each all of its conditions.
    calls: BTreeMap<u32, Vec<Vec<If>>>,
}

impl AllowList {
    pub fn of<'a>(calls: impl IntoIterator<Item = &'a i64>) -> Self {
        let calls = calls.into_iter().filter_map(|call| u32::try_from(*call).ok());
        Self { calls: calls.map(|call| (call, vec![Vec::new()])).collect() }
    }

    /// Allows a call in these ways only.
    pub fn only(mut self, call: i64, ways: impl IntoIterator<Item = Vec<If>>) -> Self {
        if let Ok(call) = u32::try_from(call) {
            self.calls.insert(call, ways.into_iter().collect());
        }
        self
    }

    /// The program. Foreign ABIs are another program's matter, see `seccomp::unknown`.
    pub fn compile(&self) -> io::Result<Vec<Instruction>> {
        let mut program = vec![step(LOAD, NUMBER_AT)];
        program.extend(tree(&self.ranges())?);
        Ok(program)
    }

    /// Where the answer changes: first number, and what is answered from there on.
    fn ranges(&self) -> Vec<(u32, Vec<Instruction>)> {
        let refuse = vec![step(RETURN, EPERM)];
        let mut ranges = vec![(0, refuse.clone())];
        for (call, ways) in &self.calls {
            for (first, answer) in [(*call, answer(ways)), (*call + 1, refuse.clone())] {
                if ranges.last().is_some_and(|(last, _)| *last == first) {
                    ranges.pop();
                }
                if ranges.last().is_none_or(|(_, before)| *before != answer) {
                    ranges.push((first, answer));
                }
            }
        }
        ranges
    }
}

fn answer(ways: &[Vec<If>]) -> Vec<Instruction> {
    let mut program: Vec<_> = ways.iter().flat_map(|way| allowed_if(way)).collect();
    if ways.iter().all(|way| !way.is_empty()) {
        program.push(step(RETURN, EPERM));
    }
    program
}

/// Falls through where a condition does not hold.
fn allowed_if(way: &[If]) -> Vec<Instruction> {
    let mut program = vec![step(RETURN, ALLOW)];
    for condition in way.iter().rev() {
        let rest = program.len() as u8;
        let load = |argument: u8| step(LOAD, ARGUMENTS_AT + 8 * u32::from(argument));
        let check = match *condition {
            If::Is(argument, value) => vec![load(argument), jump(JUMP_EQUAL, value, 0, rest)],
            If::IsNot(argument, value) => vec![load(argument), jump(JUMP_EQUAL, value, rest, 0)],
            If::Masked(argument, bits, value) => {
                vec![load(argument), step(AND, bits), jump(JUMP_EQUAL, value, 0, rest)]
            }
        };
        program.splice(0..0, check);
    }
    program
}

fn tree(ranges: &[(u32, Vec<Instruction>)]) -> io::Result<Vec<Instruction>> {
    match ranges {
        [] => Ok(Vec::new()),
        [(_, answer)] => Ok(answer.clone()),
        _ => {
            let (below, above) = ranges.split_at(ranges.len() / 2);
            let first = above.first().map_or(0, |(first, _)| *first);
            let below = tree(below)?;
            // A jump is eight bits wide.
            let over = u8::try_from(below.len()).map_err(io::Error::other)?;
            let mut program = vec![jump(JUMP_GREATER_OR_EQUAL, first, over, 0)];
            program.extend(below);
            program.extend(tree(above)?);
            Ok(program)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel runs it.
    fn run(program: &[Instruction], number: u32, arguments: [u64; 6]) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            let go = |yes: bool| usize::from(if yes { jt } else { jf });
            at += 1 + match code {
                LOAD if k == NUMBER_AT => {
                    accumulator = number;
                    0
                }
                LOAD => {
                    accumulator = arguments[(k as usize - 16) / 8] as u32;
                    0
                }
                JUMP_EQUAL => go(accumulator == k),
                JUMP_GREATER_OR_EQUAL => go(accumulator >= k),
                AND => {
                    accumulator &= k;
                    0
                }
                RETURN => return k,
                _ => panic!("{code:#x}"),
            }
        }
    }

    #[test]
    fn each_number_is_answered_as_the_list_says() {
        let calls = [0, 1, 2, 7, 9, 10, 200, 468];
        let program = AllowList::of(&calls).compile().unwrap();
        for number in (0..1024).chain([u32::MAX]) {
            let expected = if calls.contains(&i64::from(number)) { ALLOW } else { EPERM };
            assert_eq!(run(&program, number, [0; 6]), expected, "{number}");
        }
    }

    #[test]
    fn arguments_decide_and_high_bits_do_not_help() {
        let list = AllowList::of(&[5, 6, 7])
            .only(6, [vec![If::Is(0, 1)], vec![If::Is(0, 16), If::Is(2, 0)]])
            .only(7, [vec![If::IsNot(1, 3), If::IsNot(1, 4)]])
            .only(8, [vec![If::Masked(0, 0xF0, 0)]]);
        let program = list.compile().unwrap();
        let ask = |number, first: u64, second: u64, third: u64| {
            run(&program, number, [first, second, third, 0, 0, 0]) == ALLOW
        };
        assert!(ask(5, 9, 9, 9) && ask(6, 1, 0, 7) && ask(6, 16, 0, 0) && ask(7, 0, 5, 0) && ask(8, 0x10F, 0, 0));
        assert!(!ask(6, 2, 0, 0) && !ask(6, 16, 0, 6) && !ask(8, 0x1F, 0, 0) && !ask(9, 0, 0, 0));
        assert!(!ask(7, 0, 3, 0) && !ask(7, 0, 1 << 32 | 4, 0));
    }

    #[test]
    fn an_empty_list_refuses_all() {
        let program = AllowList::default().compile().unwrap();
        assert!((0..1024).all(|number| run(&program, number, [0; 6]) == EPERM));
    }
}

//! Process 1 of a jail: waits for the jailer's end of its socket to close, and then dies, and with it the whole jail.
//!
//! No standard library: the program is a page, has no allocator, opens nothing and reads nothing but that one socket.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

const READ: usize = 0;
const WRITE: usize = 1;
const RT_SIGACTION: usize = 13;
const EXIT: usize = 60;
const PRCTL: usize = 157;

const PR_SET_PDEATHSIG: usize = 1;
const SIGKILL: usize = 9;
const SIGCHLD: usize = 17;
const SIG_IGN: usize = 1;
const EINTR: isize = -4;
const SOCKET: usize = 3;

global_asm!(".globl _start", "_start:", "xor %ebp, %ebp", "and $-16, %rsp", "call main", options(att_syntax));

fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    // SAFETY: the calls below take numbers, or addresses of memory that lives here; the kernel clobbers rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
             lateout("rcx") _, lateout("r11") _);
    }
    result
}

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    // The change of uid before exec cleared what the jailer had set.
    call(PRCTL, PR_SET_PDEATHSIG, SIGKILL, 0, 0);
    // Orphans of the jail come here; ignored, they are reaped by the kernel.
    let ignore: [usize; 4] = [SIG_IGN, 0, 0, 0];
    call(RT_SIGACTION, SIGCHLD, ignore.as_ptr() as usize, 0, 8);
    let mut byte = *b"r";
    call(WRITE, SOCKET, byte.as_ptr() as usize, 1, 0);
    // A jailer that died before PDEATHSIG was set has closed the socket: this read then ends at once.
    while call(READ, SOCKET, byte.as_mut_ptr() as usize, 1, 0) == EINTR {}
    call(EXIT, 0, 0, 0, 0);
    loop {}
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    call(EXIT, 1, 0, 0, 0);
    loop {}
}

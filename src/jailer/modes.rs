//! The terminal modes of RFC 4254 section 8, applied to a terminal.

use std::io;
use std::os::fd::OwnedFd;

use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex as Key, Termios, Winsize,
    tcgetattr, tcsetattr, tcsetwinsize,
};

use crate::privsep::message::Terminal;

/// Sets size, speed and every mode that the kernel has; unknown opcodes are ignored as the RFC says.
pub fn apply(slave: &OwnedFd, wish: &Terminal) -> io::Result<()> {
    let size = wish.size;
    tcsetwinsize(
        slave,
        Winsize { ws_col: size.columns, ws_row: size.rows, ws_xpixel: size.width, ws_ypixel: size.height },
    )?;
    let mut termios = tcgetattr(slave)?;
    for (opcode, value) in &wish.modes {
        set(&mut termios, *opcode, *value);
    }
    // Clients on terminals of bytes do not send it, and without it backspace eats half a letter.
    if !wish.modes.iter().any(|(opcode, _)| *opcode == 42) {
        termios.input_modes.insert(InputModes::IUTF8);
    }
    Ok(tcsetattr(slave, OptionalActions::Now, &termios)?)
}

fn set(termios: &mut Termios, opcode: u8, value: u32) {
    if let Some(key) = key(opcode) {
        // 255 is the RFC's "no such key", 0 is the kernel's.
        termios.special_codes[key] = u8::try_from(value).ok().filter(|v| *v != 255).unwrap_or(0);
    }
    let on = value != 0;
    if let Some(mode) = input(opcode) {
        termios.input_modes.set(mode, on);
    }
    if let Some(mode) = local(opcode) {
        termios.local_modes.set(mode, on);
    }
    if let Some(mode) = output(opcode) {
        termios.output_modes.set(mode, on);
    }
    match opcode {
        90 if on => termios.control_modes = termios.control_modes.difference(ControlModes::CSIZE) | ControlModes::CS7,
        91 if on => termios.control_modes = termios.control_modes.difference(ControlModes::CSIZE) | ControlModes::CS8,
        92 => termios.control_modes.set(ControlModes::PARENB, on),
        93 => termios.control_modes.set(ControlModes::PARODD, on),
        128 => drop(termios.set_input_speed(value)),
        129 => drop(termios.set_output_speed(value)),
        _ => {}
    }
}

fn key(opcode: u8) -> Option<Key> {
    Some(match opcode {
        1 => Key::VINTR,
        2 => Key::VQUIT,
        3 => Key::VERASE,
        4 => Key::VKILL,
        5 => Key::VEOF,
        6 => Key::VEOL,
        7 => Key::VEOL2,
        8 => Key::VSTART,
        9 => Key::VSTOP,
        10 => Key::VSUSP,
        12 => Key::VREPRINT,
        13 => Key::VWERASE,
        14 => Key::VLNEXT,
        18 => Key::VDISCARD,
        _ => return None,
    })
}

fn input(opcode: u8) -> Option<InputModes> {
    Some(match opcode {
        30 => InputModes::IGNPAR,
        31 => InputModes::PARMRK,
        32 => InputModes::INPCK,
        33 => InputModes::ISTRIP,
        34 => InputModes::INLCR,
        35 => InputModes::IGNCR,
        36 => InputModes::ICRNL,
        37 => InputModes::IUCLC,
        38 => InputModes::IXON,
        39 => InputModes::IXANY,
        40 => InputModes::IXOFF,
        41 => InputModes::IMAXBEL,
        42 => InputModes::IUTF8,
        _ => return None,
    })
}

fn local(opcode: u8) -> Option<LocalModes> {
    Some(match opcode {
        50 => LocalModes::ISIG,
        51 => LocalModes::ICANON,
        52 => LocalModes::XCASE,
        53 => LocalModes::ECHO,
        54 => LocalModes::ECHOE,
        55 => LocalModes::ECHOK,
        56 => LocalModes::ECHONL,
        57 => LocalModes::NOFLSH,
        58 => LocalModes::TOSTOP,
        59 => LocalModes::IEXTEN,
        60 => LocalModes::ECHOCTL,
        61 => LocalModes::ECHOKE,
        62 => LocalModes::PENDIN,
        _ => return None,
    })
}

fn output(opcode: u8) -> Option<OutputModes> {
    Some(match opcode {
        70 => OutputModes::OPOST,
        71 => OutputModes::OLCUC,
        72 => OutputModes::ONLCR,
        73 => OutputModes::OCRNL,
        74 => OutputModes::ONOCR,
        75 => OutputModes::ONLRET,
        _ => return None,
    })
}

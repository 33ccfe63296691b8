//! RFC 6455 frames that carry messages of v4.channel.k8s.io and v5.channel.k8s.io: a lane's number, then its bytes.

use bytes::{Buf, Bytes};

use super::wire::{Garbled, Gathered, Lane, Said, Side};

/// The longest head: two bytes, a length of 64 bits, a mask.
const HEAD: usize = 14;

/// Instead of a lane's number: the lane that the next byte names has ended. It is a word of v5; client-go says it in v4
/// too, where no cluster listens to it.
const END: u8 = 255;

#[derive(Debug)]
pub(super) struct Decoder {
    side: Side,
    v5: bool,
    head: Gathered<HEAD>,
    frame: Option<Frame>,
    message: Message,
    /// The goodbye was said; nothing but pings may follow.
    closed: bool,
}

/// A frame whose head is known.
#[derive(Clone, Copy, Debug)]
struct Frame {
    left: u64,
    mask: Option<[u8; 4]>,
    /// Of the mask's next byte.
    turn: usize,
    /// Close, ping, pong: not a part of a message.
    control: bool,
    last: bool,
}

/// The message that frames are parts of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    None,
    /// Its first byte has not come.
    Begun,
    Of(Lane),
    /// Which lane ends has not come.
    End,
    /// Which lane ends has been said.
    Ended,
}

impl Decoder {
    pub(super) fn new(side: Side, v5: bool) -> Self {
        Self { side, v5, head: Gathered::new(), frame: None, message: Message::None, closed: false }
    }

    pub(super) fn eat(&mut self, mut data: Bytes, said: &mut Vec<Said>) -> Result<(), Garbled> {
        while !data.is_empty() {
            let mut frame = match self.frame {
                Some(frame) => frame,
                None => match self.begin(&mut data)? {
                    Some(frame) => frame,
                    None => return Ok(()),
                },
            };
            let length = usize::try_from(frame.left).unwrap_or(usize::MAX).min(data.len());
            let part = data.split_to(length);
            frame.left -= length as u64;
            if !frame.control && !part.is_empty() {
                self.hear(unmasked(part, &mut frame), said)?;
            }
            self.frame = (frame.left > 0).then_some(frame);
            if self.frame.is_none() && !frame.control && frame.last {
                self.end_of_message()?;
            }
        }
        Ok(())
    }

    /// The next frame, once its head is whole.
    fn begin(&mut self, data: &mut Bytes) -> Result<Option<Frame>, Garbled> {
        let Some(&[first, second]) = self.head.take(data, 2) else { return Ok(None) };
        let length = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let masked = second & 0x80 != 0;
        let whole = 2 + length + if masked { 4 } else { 0 };
        let Some(head) = self.head.take(data, whole) else { return Ok(None) };
        let (extended, mask) = head.split_at(2).1.split_at(length);
        let left = match length {
            0 => u64::from(second & 0x7f),
            _ => extended.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        let mask = mask.try_into().ok();
        self.head.clear();
        let frame = Frame { left, mask, turn: 0, control: first & 8 != 0, last: first & 0x80 != 0 };
        self.judge(first, masked, &frame)?;
        Ok(Some(frame))
    }

    fn judge(&mut self, first: u8, masked: bool, frame: &Frame) -> Result<(), Garbled> {
        if first & 0x70 != 0 {
            return Err(Garbled("a frame with a reserved bit, though no extension was agreed on"));
        }
        if masked != (self.side == Side::Client) {
            return Err(Garbled("a frame whose mask is the other side's"));
        }
        if frame.left >> 63 != 0 {
            return Err(Garbled("a frame of no possible length"));
        }
        if frame.control {
            if !frame.last || frame.left > 125 {
                return Err(Garbled("a control frame that is long or in parts"));
            }
            return match first & 0x0f {
                8 => {
                    self.closed = true;
                    Ok(())
                }
                9 | 10 => Ok(()),
                _ => Err(Garbled("a frame of an unknown kind")),
            };
        }
        if self.closed {
            return Err(Garbled("a message after the goodbye"));
        }
        // API servers take each part for a message of its own, with a lane of its own: what the parts say is not what they
        // do. No client of Kubernetes sends any.
        if self.side == Side::Client && (!frame.last || first & 0x0f == 0) {
            return Err(Garbled("a message in parts, which API servers do not put together"));
        }
        self.message = match (first & 0x0f, self.message) {
            (0, Message::None) => return Err(Garbled("a part of no message")),
            (0, message) => message,
            // Text: some clients send it, and no server tells it from bytes.
            (1 | 2, Message::None) => Message::Begun,
            (1 | 2, _) => return Err(Garbled("a message within a message")),
            _ => return Err(Garbled("a frame of an unknown kind")),
        };
        Ok(())
    }

    fn hear(&mut self, mut data: Bytes, said: &mut Vec<Said>) -> Result<(), Garbled> {
        if self.message == Message::Begun && data.has_remaining() {
            self.message = self.addressed(data.get_u8())?;
        }
        if self.message == Message::End && data.has_remaining() {
            let number = data.get_u8();
            let lane = Lane::of(number).filter(|lane| lane.speaker() == Side::Client);
            let lane = lane.ok_or(Garbled("the end of a lane that is not the client's"))?;
            if self.v5 {
                said.push(Said::End(lane));
            }
            self.message = Message::Ended;
        }
        match self.message {
            _ if data.is_empty() => Ok(()),
            Message::Of(lane) => {
                said.push(Said::Data(lane, data));
                Ok(())
            }
            _ => Err(Garbled("more than the end of one lane")),
        }
    }

    fn addressed(&self, number: u8) -> Result<Message, Garbled> {
        match Lane::of(number) {
            Some(lane) if lane.speaker() == self.side => Ok(Message::Of(lane)),
            Some(_) => Err(Garbled("a message in a lane of the other side")),
            None if number == END && self.side == Side::Client => Ok(Message::End),
            None => Err(Garbled("a message in a lane that there is not")),
        }
    }

    fn end_of_message(&mut self) -> Result<(), Garbled> {
        match std::mem::replace(&mut self.message, Message::None) {
            Message::End => Err(Garbled("the end of no lane")),
            _ => Ok(()),
        }
    }
}

/// A copy where there is a mask: what is forwarded keeps it.
fn unmasked(data: Bytes, frame: &mut Frame) -> Bytes {
    let Some(mut mask) = frame.mask else { return data };
    mask.rotate_left(frame.turn);
    frame.turn = (frame.turn + data.len()) % mask.len();
    let mut plain = data.to_vec();
    let word = u32::from_ne_bytes(mask);
    let (words, rest) = plain.as_chunks_mut::<4>();
    for bytes in words {
        *bytes = (u32::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
    plain.into()
}

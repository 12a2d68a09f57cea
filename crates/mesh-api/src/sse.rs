//! Server-sent events, as far as this API uses them: the reading side.

/// One message of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SseMessage {
    /// Its kind; empty when the stream did not say.
    pub event: String,
    /// Its number, with which a stream is resumed; empty when the stream did not say.
    pub id: String,
    /// What it carries.
    pub data: String,
}

/// Cuts a stream of bytes into messages, wherever the network cut it.
#[derive(Debug, Default)]
pub struct SseParser {
    buffer: Vec<u8>,
    done: usize,
    message: SseMessage,
}

impl SseParser {
    /// Takes more bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.done);
        self.done = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, if the bytes so far hold one. Comments, which keep a quiet stream
    /// alive, are skipped.
    pub fn pop(&mut self) -> Option<SseMessage> {
        loop {
            let rest = self.buffer.get(self.done..)?;
            let length = rest.iter().position(|byte| *byte == b'\n')?;
            let line = String::from_utf8_lossy(rest.get(..length)?).into_owned();
            self.done += length + 1;
            if let Some(message) = self.line(line.trim_end_matches('\r')) {
                return Some(message);
            }
        }
    }

    fn line(&mut self, line: &str) -> Option<SseMessage> {
        if line.is_empty() {
            let message = std::mem::take(&mut self.message);
            return (!message.data.is_empty()).then_some(message);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.message.event),
            "id" => value.clone_into(&mut self.message.id),
            "data" => {
                if !self.message.data.is_empty() {
                    self.message.data.push('\n');
                }
                self.message.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&str]) -> Vec<SseMessage> {
        let mut parser = SseParser::default();
        let mut messages = Vec::new();
        for piece in pieces {
            parser.push(piece.as_bytes());
            messages.extend(std::iter::from_fn(|| parser.pop()));
        }
        messages
    }

    #[test]
    fn messages_are_the_same_wherever_the_network_cuts_them() {
        let text =
            ": alive\n\nid: 7\nevent: submitted\ndata: {\"a\":1}\ndata: x\n\ndata: y\r\n\r\n";
        let whole = read(&[text]);
        let expected = [
            SseMessage { event: "submitted".into(), id: "7".into(), data: "{\"a\":1}\nx".into() },
            SseMessage { data: "y".into(), ..SseMessage::default() },
        ];
        assert_eq!(whole, expected);
        for cut in 1..text.len() {
            let (left, right) = text.split_at(cut);
            assert_eq!(read(&[left, right]), expected, "cut at {cut}");
        }
    }

    #[test]
    fn half_a_message_is_none() {
        assert_eq!(read(&["data: x\n"]), []);
    }
}

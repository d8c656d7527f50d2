//! TensorBoard event files, scalars only.
//!
//! A file is a row of TFRecords: `length: u64 le, masked crc32c of those 8 bytes: u32 le, data, masked crc32c of data`,
//! with `masked(c) = rotate_right(c, 15) + 0xa282ead8`. The data is a protobuf `Event`: 1 `wall_time` double, 2 `step`
//! int64, 3 `file_version` string, 5 `summary`, 7 `session_log`; `Summary` has 1 `value` repeated, with 1 `tag` string and
//! 2 `simple_value` float; `SessionLog` has 1 `status` (1 is START). Formats: TensorFlow's `event.proto`,
//! `summary.proto` and `record_writer`.
//!
//! A resumed stage adds a second file that opens with a START record at its first step: readers then forget what the
//! first file has from that step on.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::RunsError;
use crate::atomic::remove_any;

/// Writes one event file in `DIR`.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Opens a new file in `dir` (made if needed) for the steps after `resume`; `None` removes older event files first.
    /// `wall_time` is in seconds since 1970.
    ///
    /// # Errors
    /// [`RunsError::Io`] or [`RunsError::DiskFull`].
    pub fn open(dir: impl AsRef<Path>, resume: Option<u64>, wall_time: f64) -> Result<Self, RunsError> {
        let dir = dir.as_ref();
        fs::create_dir_all(dir).map_err(|error| RunsError::io("create the folder", dir, error))?;
        let mut next = 0;
        for entry in fs::read_dir(dir).map_err(|error| RunsError::io("list", dir, error))? {
            let entry = entry.map_err(|error| RunsError::io("list", dir, error))?;
            let name = entry.file_name();
            let Some(number) = file_number(&name.to_string_lossy()) else {
                continue;
            };
            if resume.is_none() {
                remove_any(&entry.path())?;
            } else {
                next = next.max(number + 1);
            }
        }
        // Readers take the files in the order of their names.
        let path = dir.join(format!("events.out.tfevents.{next:010}.aha"));
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| RunsError::io("create", &path, error))?;
        let mut writer = Self { path, file };
        let mut version = Message::event(wall_time, 0);
        version.bytes(3, b"brain.Event:2");
        writer.write(&record(&version.0))?;
        if let Some(step) = resume {
            let mut start = Message::event(wall_time, step + 1);
            let mut session_log = Message::default();
            session_log.varint(1, 1);
            start.bytes(7, &session_log.0);
            writer.write(&record(&start.0))?;
        }
        Ok(writer)
    }

    /// Adds the scalars of a step as one event. Values become f32, as the format has them; NaN stays NaN.
    ///
    /// # Errors
    /// [`RunsError::Io`] or [`RunsError::DiskFull`].
    pub fn add_scalars(&mut self, step: u64, wall_time: f64, scalars: &[(&str, f64)]) -> Result<(), RunsError> {
        let mut summary = Message::default();
        for &(tag, value) in scalars {
            let mut entry = Message::default();
            entry.bytes(1, tag.as_bytes());
            entry.float(2, value as f32);
            summary.bytes(1, &entry.0);
        }
        let mut event = Message::event(wall_time, step);
        event.bytes(5, &summary.0);
        self.write(&record(&event.0))
    }

    /// The file being written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), RunsError> {
        self.file.write_all(bytes).map_err(|error| RunsError::io("write", &self.path, error))
    }
}

/// The number in the name of one of our files.
fn file_number(name: &str) -> Option<u64> {
    name.strip_prefix("events.out.tfevents.")?.strip_suffix(".aha")?.parse().ok()
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend_from_slice(&length);
    record.extend_from_slice(&masked_crc(&length).to_le_bytes());
    record.extend_from_slice(data);
    record.extend_from_slice(&masked_crc(data).to_le_bytes());
    record
}

/// A protobuf message under construction: each field is a varint `number << 3 | wire type`, then the value.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn event(wall_time: f64, step: u64) -> Self {
        let mut message = Self::default();
        message.raw_varint(1 << 3 | 1);
        message.0.extend_from_slice(&wall_time.to_le_bytes());
        message.varint(2, step);
        message
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.raw_varint(field << 3);
        self.raw_varint(value);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.raw_varint(field << 3 | 2);
        self.raw_varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.raw_varint(field << 3 | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field as a protobuf reader sees it.
    #[derive(Debug, PartialEq)]
    enum Field<'a> {
        Varint(u64),
        Double(f64),
        Float(f32),
        Bytes(&'a [u8]),
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }

    fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
        let (head, tail) = bytes.split_at(n);
        *bytes = tail;
        head
    }

    fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let field = match key & 7 {
                0 => Field::Varint(varint(&mut bytes)),
                1 => Field::Double(f64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap())),
                2 => {
                    let n = varint(&mut bytes) as usize;
                    Field::Bytes(take(&mut bytes, n))
                }
                5 => Field::Float(f32::from_le_bytes(take(&mut bytes, 4).try_into().unwrap())),
                other => panic!("wire type {other}"),
            };
            found.push((key >> 3, field));
        }
        found
    }

    fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let length = take(&mut bytes, 8);
            assert_eq!(take(&mut bytes, 4), masked_crc(length).to_le_bytes());
            let data = take(&mut bytes, u64::from_le_bytes(length.try_into().unwrap()) as usize);
            assert_eq!(take(&mut bytes, 4), masked_crc(data).to_le_bytes());
            found.push(data);
        }
        found
    }

    #[test]
    fn the_checksum_is_castagnoli_masked() {
        // RFC 3720 B.4: 32 zero bytes have crc32c 0x8a9136aa.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(masked_crc(&[0; 32]), 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }

    #[test]
    fn the_first_record_is_known_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let writer = EventWriter::open(dir.path(), None, 1.5).unwrap();
        let bytes = fs::read(writer.path()).unwrap();
        let data = b"\x09\0\0\0\0\0\0\xf8\x3f\x10\0\x1a\x0dbrain.Event:2";
        assert_eq!(bytes[..8], (data.len() as u64).to_le_bytes());
        assert_eq!(&bytes[12..bytes.len() - 4], data);
    }

    #[test]
    fn scalars_parse_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::open(dir.path().join("tb"), None, 100.0).unwrap();
        writer.add_scalars(300, 101.25, &[("reward", 0.5), ("kl", f64::NAN), ("rewards/accuracy/mean", -2.0)]).unwrap();
        let bytes = fs::read(writer.path()).unwrap();
        let events = records(&bytes);
        assert_eq!(events.len(), 2);
        let event = fields(events[1]);
        assert_eq!(event[..2], [(1, Field::Double(101.25)), (2, Field::Varint(300))]);
        let (5, Field::Bytes(summary)) = event[2] else { panic!("{event:?}") };
        let values: Vec<_> = fields(summary)
            .into_iter()
            .map(|(number, value)| {
                assert_eq!(number, 1);
                let Field::Bytes(value) = value else { panic!() };
                let value = fields(value);
                let (&(1, Field::Bytes(tag)), &(2, Field::Float(x))) = (&value[0], &value[1]) else { panic!() };
                (String::from_utf8(tag.to_vec()).unwrap(), x)
            })
            .collect();
        assert_eq!(values[0], ("reward".into(), 0.5));
        assert!(values[1].0 == "kl" && values[1].1.is_nan());
        assert_eq!(values[2], ("rewards/accuracy/mean".into(), -2.0));
    }

    #[test]
    fn a_resumed_stage_adds_a_file_that_restarts_and_a_fresh_one_clears() {
        let dir = tempfile::tempdir().unwrap();
        let first = EventWriter::open(dir.path(), None, 1.0).unwrap().path().to_path_buf();
        let second = EventWriter::open(dir.path(), Some(7), 2.0).unwrap().path().to_path_buf();
        assert!(first < second);
        let bytes = fs::read(&second).unwrap();
        let start = fields(records(&bytes)[1]);
        assert_eq!(start[1], (2, Field::Varint(8)));
        assert_eq!(start[2], (7, Field::Bytes(&[8, 1])));
        fs::write(dir.path().join("notes.txt"), b"mine").unwrap();
        let fresh = EventWriter::open(dir.path(), None, 3.0).unwrap().path().to_path_buf();
        assert_eq!(fresh, first);
        assert!(!second.exists() && dir.path().join("notes.txt").exists());
    }
}

//! What a teacher thinks of every token of a corpus, in one file: its k most likely tokens with their log-probabilities.
//!
//! The first line is JSON and says what the file is ([`TopKHeader`]). Then come blocks of [`BLOCK_ROWS`] rows (the last one
//! may be shorter), each with the CRC-32C of its bytes behind it. A row is k ids of two bytes, or three where the vocabulary
//! has more than 65,536 tokens, k log-probabilities in f16, and that of all other tokens: 4 k + 2 or 5 k + 2 bytes (k = 32:
//! 130 or 162, where f32 logits of 129,280 tokens are 517,120). f16 keeps a log-probability of -10 to 0.004; what is read is
//! scaled to be a distribution again.
//!
//! Blocks are appended to `NAME.part`, which becomes `NAME` when all rows are there. A writer that was killed goes on after
//! the last block that is whole.

use crate::DataError;
use aha_kernels::TopK;
use half::f16;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Rows of a block.
pub const BLOCK_ROWS: u64 = 1024;

const FORMAT: &str = "aha-topk-1";

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopKHeader {
    /// Tokens per row.
    pub k: usize,
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// Rows of the whole file.
    pub rows: u64,
    /// What the teacher's logits were divided by.
    pub temperature: f32,
    /// Hash of the teacher and the tokens.
    pub of: String,
}

#[derive(Serialize, Deserialize)]
struct FirstLine {
    format: String,
    #[serde(flatten)]
    header: TopKHeader,
}

impl TopKHeader {
    fn id_bytes(&self) -> usize {
        if self.vocab <= 1 << 16 { 2 } else { 3 }
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.k * (self.id_bytes() + 2) + 2
    }

    fn line(&self) -> String {
        let line = FirstLine { format: FORMAT.into(), header: self.clone() };
        serde_json::to_string(&line).expect("numbers and text") + "\n"
    }

    fn rows_of(&self, block: u64) -> u64 {
        (self.rows - block * BLOCK_ROWS).min(BLOCK_ROWS)
    }

    fn block_bytes(&self, block: u64) -> usize {
        self.rows_of(block) as usize * self.row_bytes() + 4
    }

    /// Where a block begins, behind a first line of `start` bytes.
    fn offset(&self, start: u64, block: u64) -> u64 {
        start + block * (BLOCK_ROWS * self.row_bytes() as u64 + 4)
    }

    fn encode(&self, rows: &TopK, row: usize, out: &mut Vec<u8>) {
        let wide = row * self.k..(row + 1) * self.k;
        for id in &rows.ids[wide.clone()] {
            out.extend_from_slice(&id.to_le_bytes()[..self.id_bytes()]);
        }
        for v in rows.logprobs[wide].iter().chain([&rows.tails[row]]) {
            out.extend_from_slice(&f16::from_f32(*v).to_le_bytes());
        }
    }

    fn decode(&self, bytes: &[u8], out: &mut TopK) {
        let ids = self.k * self.id_bytes();
        for row in bytes.chunks_exact(self.row_bytes()) {
            for id in row[..ids].chunks_exact(self.id_bytes()) {
                out.ids.push(id.iter().rev().fold(0, |n, byte| n << 8 | u32::from(*byte)));
            }
            let values: Vec<f32> =
                row[ids..].chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
            let log: f64 = values.iter().map(|v| f64::from(*v).exp()).sum::<f64>().ln();
            let scaled = |v: &f32| (f64::from(*v) - log) as f32;
            out.logprobs.extend(values[..self.k].iter().map(scaled));
            out.tails.push(scaled(&values[self.k]));
        }
    }
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> DataError + use<> {
    let path = path.to_path_buf();
    move |e| DataError::Source { path: path.clone(), line: String::new(), problem: e.to_string() }
}

fn broken(path: &Path, problem: String) -> DataError {
    let problem = format!("{problem}; remove the file and run again");
    DataError::Source { path: path.to_path_buf(), line: String::new(), problem }
}

/// The bytes of a block without its checksum; `None` where they are not all there or have changed.
fn read_block(file: &mut File, header: &TopKHeader, start: u64, block: u64) -> Result<Option<Vec<u8>>, std::io::Error> {
    let mut bytes = vec![0; header.block_bytes(block)];
    file.seek(SeekFrom::Start(header.offset(start, block)))?;
    match file.read_exact(&mut bytes) {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let sum = bytes.split_off(bytes.len() - 4);
    Ok((crc32c::crc32c(&bytes).to_le_bytes() == sum[..]).then_some(bytes))
}

/// A file that is being written.
#[derive(Debug)]
pub struct TopKWriter {
    path: PathBuf,
    part: PathBuf,
    file: File,
    header: TopKHeader,
    done: u64,
    block: Vec<u8>,
}

impl TopKWriter {
    /// Begins a file, or goes on with what a writer with the same header left.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn open(path: &Path, header: &TopKHeader) -> Result<Self, DataError> {
        let part = path.with_extension("part");
        let fail = failed(&part);
        let mut file =
            File::options().create(true).truncate(false).read(true).write(true).open(&part).map_err(&fail)?;
        let line = header.line();
        let start = line.len() as u64;
        let mut first = vec![0; line.len()];
        let known = file.read_exact(&mut first).is_ok() && first == line.as_bytes();
        let (mut done, mut end) = (0, start);
        if known {
            let mut block = 0;
            while done < header.rows && read_block(&mut file, header, start, block).map_err(&fail)?.is_some() {
                done += header.rows_of(block);
                end += header.block_bytes(block) as u64;
                block += 1;
            }
        } else {
            file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(line.as_bytes())).map_err(&fail)?;
        }
        file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).map_err(&fail)?;
        Ok(TopKWriter { path: path.to_path_buf(), part, file, header: header.clone(), done, block: Vec::new() })
    }

    /// Rows that are there: the next one to [`push`](Self::push) has this number.
    pub fn rows(&self) -> u64 {
        self.done + (self.block.len() / self.header.row_bytes()) as u64
    }

    /// Adds rows; they are safe once their block is whole.
    ///
    /// # Errors
    /// Rows of another width, more rows than announced, a failed write.
    pub fn push(&mut self, rows: &TopK) -> Result<(), DataError> {
        if rows.k != self.header.k || self.rows() + rows.len() as u64 > self.header.rows {
            let (found, at, most) = (rows.len(), self.rows(), self.header.rows);
            let problem = format!("{found} rows of {} tokens do not fit behind row {at} of {most}", rows.k);
            return Err(broken(&self.part, problem));
        }
        for row in 0..rows.len() {
            self.header.encode(rows, row, &mut self.block);
            let block = self.done / BLOCK_ROWS;
            if self.rows() - self.done == self.header.rows_of(block) {
                let sum = crc32c::crc32c(&self.block);
                self.block.extend_from_slice(&sum.to_le_bytes());
                self.file.write_all(&self.block).map_err(failed(&self.part))?;
                self.done += self.header.rows_of(block);
                self.block.clear();
            }
        }
        Ok(())
    }

    /// Ends a file that has all its rows.
    ///
    /// # Errors
    /// Rows that are missing, a failed write.
    pub fn finish(self) -> Result<(), DataError> {
        if self.done != self.header.rows {
            return Err(broken(&self.part, format!("has {} of {} rows", self.done, self.header.rows)));
        }
        let fail = failed(&self.part);
        self.file.sync_all().and_then(|()| std::fs::rename(&self.part, &self.path)).map_err(&fail)?;
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|f| f.sync_all()).map_err(fail)
    }
}

/// A file opened for reading; rows are read when they are asked for.
#[derive(Debug)]
pub struct TopKStore {
    path: PathBuf,
    file: Mutex<File>,
    header: TopKHeader,
    start: u64,
}

impl TopKStore {
    /// Opens a whole file.
    ///
    /// # Errors
    /// A file that cannot be read, is of another kind or has another length than it says.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let fail = failed(path);
        let file = File::open(path).map_err(&fail)?;
        let mut line = String::new();
        let mut reader = BufReader::new(&file).take(1 << 16);
        let first = reader.read_line(&mut line).ok().and_then(|_| serde_json::from_str::<FirstLine>(&line).ok());
        let Some(FirstLine { header, .. }) = first.filter(|l| l.format == FORMAT) else {
            return Err(broken(path, "is no file of a teacher's tokens".into()));
        };
        let start = line.len() as u64;
        let last = header.rows.saturating_sub(1) / BLOCK_ROWS;
        let length =
            if header.rows == 0 { start } else { header.offset(start, last) + header.block_bytes(last) as u64 };
        let found = file.metadata().map_err(&fail)?.len();
        if found != length {
            return Err(broken(path, format!("has {found} bytes, not the {length} of {} rows", header.rows)));
        }
        Ok(TopKStore { path: path.to_path_buf(), file: Mutex::new(file), header, start })
    }

    /// What it holds.
    pub fn header(&self) -> &TopKHeader {
        &self.header
    }

    /// Some of the rows.
    ///
    /// # Errors
    /// A failed read, a block whose checksum is wrong.
    ///
    /// # Panics
    /// When the range is not inside the file.
    pub fn rows(&self, range: Range<u64>) -> Result<TopK, DataError> {
        assert!(range.start <= range.end && range.end <= self.header.rows, "rows of a teacher");
        let mut all = TopK { k: self.header.k, ..TopK::default() };
        let width = self.header.row_bytes();
        for block in range.start / BLOCK_ROWS..range.end.div_ceil(BLOCK_ROWS) {
            let read = {
                let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                read_block(&mut file, &self.header, self.start, block)
            };
            let bytes = read
                .map_err(failed(&self.path))?
                .ok_or_else(|| broken(&self.path, format!("block {block} is damaged")))?;
            let first = block * BLOCK_ROWS;
            let from = range.start.saturating_sub(first) as usize;
            let to = (range.end - first).min(self.header.rows_of(block)) as usize;
            self.header.decode(&bytes[from * width..to * width], &mut all);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(rows: u64, vocab: usize) -> TopKHeader {
        TopKHeader { k: 3, vocab, rows, temperature: 1.5, of: "abc".into() }
    }

    /// Row i: ids that need the width, log-probabilities that sum to one with the tail.
    fn rows(range: Range<u64>, vocab: usize) -> TopK {
        let mut all = TopK { k: 3, ..TopK::default() };
        for i in range {
            all.ids.extend([(i * 7 % vocab as u64) as u32, vocab as u32 - 1, 1]);
            let p = [0.5, 0.3 / (1.0 + (i % 5) as f32), 0.01];
            all.logprobs.extend(p.map(f32::ln));
            all.tails.push((1.0 - p.iter().sum::<f32>()).ln());
        }
        all
    }

    #[test]
    fn what_is_read_is_what_was_written_in_f16_and_a_distribution() {
        let dir = tempfile::tempdir().unwrap();
        for (vocab, bytes) in [(1 << 16, 14), (129_280, 17)] {
            let path = dir.path().join("teacher.topk");
            let header = header(2500, vocab);
            assert_eq!(header.row_bytes(), bytes);
            let mut writer = TopKWriter::open(&path, &header).unwrap();
            for at in (0..2500).step_by(100) {
                writer.push(&rows(at..at + 100, vocab)).unwrap();
            }
            writer.finish().unwrap();
            let size = std::fs::metadata(&path).unwrap().len();
            assert_eq!(size, header.line().len() as u64 + 2500 * bytes as u64 + 3 * 4);
            let store = TopKStore::open(&path).unwrap();
            assert_eq!(store.header(), &header);
            for range in [0..2500, 1000..1100, 2047..2049, 7..7, 2400..2500] {
                let (found, want) = (store.rows(range.clone()).unwrap(), rows(range, vocab));
                assert_eq!(found.ids, want.ids);
                for (a, b) in found.logprobs.iter().zip(&want.logprobs).chain(found.tails.iter().zip(&want.tails)) {
                    assert!((a - b).abs() < 1e-3 * b.abs().max(1.0), "{a} {b}");
                }
                for i in 0..found.len() {
                    let row = found.rows(i..i + 1);
                    let mass: f32 = row.logprobs.iter().chain(&row.tails).map(|v| v.exp()).sum();
                    assert!((mass - 1.0).abs() < 1e-6, "{mass}");
                }
            }
        }
    }

    /// Whatever byte a kill cuts the unfinished file at, it is gone on with and ends with the same bytes.
    #[test]
    fn a_cut_anywhere_loses_only_the_block_being_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("teacher.topk");
        let (header, all) = (header(2100, 500), rows(0..2100, 500));
        let mut writer = TopKWriter::open(&path, &header).unwrap();
        writer.push(&all).unwrap();
        writer.finish().unwrap();
        let whole = std::fs::read(&path).unwrap();
        let part = path.with_extension("part");
        for cut in (0..=whole.len()).step_by(911).chain([whole.len()]) {
            let mut bytes = whole[..cut].to_vec();
            // Bytes that were never written where the file was made longer first.
            bytes.extend([0; 9]);
            std::fs::write(&part, bytes).unwrap();
            let mut writer = TopKWriter::open(&path, &header).unwrap();
            let block = 1024 * 14 + 4;
            let blocks = (cut.saturating_sub(header.line().len()) / block) as u64;
            let want = if cut == whole.len() { 2100 } else { blocks * BLOCK_ROWS };
            assert_eq!(writer.rows(), want, "cut at {cut}");
            writer.push(&all.rows(want as usize..2100)).unwrap();
            writer.finish().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), whole, "cut at {cut}");
        }
        // What was made of something else is not gone on with.
        std::fs::write(&part, &whole[..5000]).unwrap();
        let other = TopKHeader { of: "abd".into(), ..header };
        assert_eq!(TopKWriter::open(&path, &other).unwrap().rows(), 0);
    }

    #[test]
    fn damage_and_wrong_rows_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("teacher.topk");
        let header = header(1500, 500);
        let mut writer = TopKWriter::open(&path, &header).unwrap();
        let mut other = rows(0..2, 500);
        other.k = 2;
        assert!(writer.push(&other).unwrap_err().to_string().contains("rows of 2 tokens"));
        writer.push(&rows(0..1400, 500)).unwrap();
        assert!(writer.push(&rows(0..200, 500)).unwrap_err().to_string().contains("behind row 1400 of 1500"));
        assert!(writer.finish().unwrap_err().to_string().contains("has 1024 of 1500 rows"));
        let mut writer = TopKWriter::open(&path, &header).unwrap();
        writer.push(&rows(1024..1500, 500)).unwrap();
        writer.finish().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.len() - 100;
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let store = TopKStore::open(&path).unwrap();
        assert!(store.rows(0..1024).is_ok());
        let problem = store.rows(1000..1030).unwrap_err().to_string();
        assert!(problem.contains("block 1 is damaged") && problem.contains("run again"), "{problem}");
        std::fs::write(&path, &bytes[..at]).unwrap();
        assert!(TopKStore::open(&path).unwrap_err().to_string().contains("not the"));
        std::fs::write(&path, "{}\n").unwrap();
        assert!(TopKStore::open(&path).unwrap_err().to_string().contains("no file of a teacher"));
    }
}

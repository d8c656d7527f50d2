//! What chat templates call and Jinja does not have: Python's JSON spelling and `strftime`.

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// `json.dumps(value, ensure_ascii=False, indent=indent)`: a space after commas and colons, nothing escaped
/// for HTML.
pub(super) fn tojson(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Other options of transformers' filter that keep their defaults are of no interest here.
    let text = match indent {
        Some(indent) => dump(&value, PrettyFormatter::with_indent(" ".repeat(indent).as_bytes())),
        None => dump(&value, PythonFormatter),
    };
    text.map(Value::from).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))
}

fn dump(value: &Value, formatter: impl Formatter) -> serde_json::Result<String> {
    let mut out = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut out, formatter))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

struct PythonFormatter;

impl Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Formats a UTC time with the common `strftime` codes; an unknown one is an error.
pub(super) fn strftime(format: &str, unix_s: i64) -> Result<String, Error> {
    let (day, second) = (unix_s.div_euclid(86_400), unix_s.rem_euclid(86_400));
    let (year, month, date) = civil(day);
    let weekday = (day + 4).rem_euclid(7) as usize; // 1970-01-01 was a Thursday.
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        out += &match chars.next() {
            Some('Y') => format!("{year:04}"),
            Some('y') => format!("{:02}", year.rem_euclid(100)),
            Some('m') => format!("{month:02}"),
            Some('B') => MONTHS[month as usize - 1].to_owned(),
            Some('b') => MONTHS[month as usize - 1][..3].to_owned(),
            Some('d') => format!("{date:02}"),
            Some('A') => DAYS[weekday].to_owned(),
            Some('a') => DAYS[weekday][..3].to_owned(),
            Some('H') => format!("{hour:02}"),
            Some('I') => format!("{:02}", (hour + 11) % 12 + 1),
            Some('p') => (if hour < 12 { "AM" } else { "PM" }).to_owned(),
            Some('M') => format!("{minute:02}"),
            Some('S') => format!("{second:02}"),
            Some('%') => "%".to_owned(),
            other => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("strftime_now: unknown code %{}", other.unwrap_or(' ')),
                ));
            }
        };
    }
    Ok(out)
}

/// Year, month (1-12) and day (1-31) of a day count since 1970-01-01, in the Gregorian calendar. Years are
/// counted from March, so that the leap day comes last.
fn civil(day: i64) -> (i64, i64, i64) {
    let since = day + 719_468; // Days since 0000-03-01.
    let era = since.div_euclid(146_097); // 400 years.
    let in_era = since.rem_euclid(146_097);
    let year = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * in_year + 2) / 153;
    let date = in_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12 + 1;
    (era * 400 + year + i64::from(month <= 2), month, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_by_hand() {
        let at = |unix_s| strftime("%d %b %Y %H:%M:%S %a", unix_s).unwrap();
        assert_eq!(at(0), "01 Jan 1970 00:00:00 Thu");
        assert_eq!(at(951_782_400), "29 Feb 2000 00:00:00 Tue");
        assert_eq!(at(1_721_999_999), "26 Jul 2024 13:19:59 Fri");
        assert_eq!(at(-1), "31 Dec 1969 23:59:59 Wed");
        assert_eq!(strftime("%I %p %B %y%%", 43_200).unwrap(), "12 PM January 70%");
        assert!(strftime("%Q", 0).is_err());
    }
}

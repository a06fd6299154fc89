//! `set_…`: variables are escaped, encoded, hashed, counted and drawn by lot (OpenResty's set-misc
//! module).
//!
//! Each directive but the settings of base32 is a step of the place's program, in order with
//! `set`, `rewrite` and `if`. Its first word is the variable that is assigned; where no value
//! follows, the variable's own is taken. Not there: `set_hashed_upstream`.

use crate::conf::*;
use crate::http::rewrite::{Op, WantedOps};
use crate::http::variable::name_of;
use crate::http::{HttpModule, Merging, Request, Template, VariableTable};
use crate::log::{self, Raw};
use crate::proto::digits::{self, Base32, hex};
use crate::proto::escape::{Escape, Unescape, push_json, push_sql, unescape};
use crate::sys::time::{self, Calendar};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;
use std::cell::Cell;

/// The module.
pub struct SetMisc;

const STEP: Context = SRV | SIF | LOC | LIF;
const ANY: Context = HTTP | STEP;

/// The variable, and the value if it is not its own.
const OWN: Arity = between(1, 2);

impl HttpModule for SetMisc {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    #[rustfmt::skip]
    const LOC: &'static [Directive<RawLoc>] = &[
        d("set_if_empty",         STEP, call(exactly(2), |_, r| own(r, if_empty))),
        d("set_quote_sql_str",    STEP, call(OWN, |_, r| given(r, quote_sql))),
        d("set_quote_pgsql_str",  STEP, call(OWN, |_, r| given(r, quote_pgsql))),
        d("set_quote_json_str",   STEP, call(OWN, |_, r| given(r, quote_json))),
        d("set_unescape_uri",     STEP, call(OWN, |_, r| given(r, unescape_uri))),
        d("set_escape_uri",       STEP, call(OWN, |_, r| given(r, escape_uri))),
        d("set_base32_padding",   ANY,  flag(|c| &mut c.pads)),
        d("set_base32_alphabet",  ANY,  call(exactly(1), RawLoc::alphabet)),
        d("set_encode_base32",    STEP, call(OWN, |_, r| given(r, encode_base32))),
        d("set_decode_base32",    STEP, call(OWN, |_, r| given(r, decode_base32))),
        d("set_encode_base64",    STEP, call(OWN, |_, r| given(r, encode_base64))),
        d("set_decode_base64",    STEP, call(OWN, |_, r| given(r, decode_base64))),
        d("set_encode_base64url", STEP, call(OWN, |_, r| given(r, encode_base64url))),
        d("set_decode_base64url", STEP, call(OWN, |_, r| given(r, decode_base64url))),
        d("set_encode_hex",       STEP, call(OWN, |_, r| given(r, encode_hex))),
        d("set_decode_hex",       STEP, call(OWN, |_, r| given(r, decode_hex))),
        d("set_sha1",             STEP, call(OWN, |_, r| given(r, sha1))),
        d("set_md5",              STEP, call(OWN, |_, r| given(r, md5))),
        d("set_hmac_sha1",        STEP, call(exactly(3), |_, r| given(r, hmac_sha1))),
        d("set_hmac_sha256",      STEP, call(exactly(3), |_, r| given(r, hmac_sha256))),
        d("set_random",           STEP, call(exactly(3), |_, r| given(r, random))),
        d("set_secure_random_alphanum", STEP, call(OWN, |_, r| given(r, alphanum))),
        d("set_secure_random_lcalpha",  STEP, call(OWN, |_, r| given(r, lcalpha))),
        d("set_rotate",           STEP, call(exactly(3), |_, r| own(r, rotate))),
        d("set_local_today",      STEP, call(exactly(1), |_, r| given(r, today))),
        d("set_formatted_gmt_time",   STEP, call(exactly(2), |_, r| given(r, gmt_time))),
        d("set_formatted_local_time", STEP, call(exactly(2), |_, r| given(r, local_time))),
    ];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        Ok(Loc {
            pads: raw.pads.unwrap_or(up.pads),
            base32: raw.base32.unwrap_or(up.base32),
            turn: Cell::new(None),
        })
    }
}

/// What was written.
#[derive(Default)]
pub struct RawLoc {
    pads: Option<bool>,
    base32: Option<Base32>,
}

/// What is in force.
pub struct Loc {
    pads: bool,
    base32: Base32,
    /// The number that `set_rotate` gave here last, in this process.
    turn: Cell<Option<u64>>,
}

impl Default for Loc {
    fn default() -> Loc {
        let base32 = Base32(*b"0123456789abcdefghijklmnopqrstuv");
        Loc { pads: true, base32, turn: Cell::new(None) }
    }
}

impl RawLoc {
    fn alphabet(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let letters = r.take_args().swap_remove(0).into_bytes();
        let base32 = <[u8; 32]>::try_from(letters).map_err(|letters| {
            Reason::says(format!(
                "\"set_base32_alphabet\" directive takes an alphabet of {} bytes but 32 expected",
                letters.len()
            ))
        })?;
        if self.base32.replace(Base32(base32)).is_some() {
            return Err(Reason::Duplicate);
        }
        Ok(())
    }
}

/// The values, and what is made of them; why nothing is, for the log.
type Make = fn(&Request, &[Vec<u8>]) -> Result<Vec<u8>, String>;

/// A step that works on the values that are written; on the variable's own if there are none.
fn given(r: &mut Reading, make: Make) -> Result<(), Reason> {
    let from = usize::from(r.args().len() > 1);
    step(r, from, make)
}

/// A step that works on the variable's own value, and those that are written.
fn own(r: &mut Reading, make: Make) -> Result<(), Reason> {
    step(r, 0, make)
}

/// Reads `$variable value …` as a step that assigns what `make` makes of the words `from` on.
fn step(r: &mut Reading, from: usize, make: Make) -> Result<(), Reason> {
    let (directive, args) = (r.name().to_owned(), r.take_args());
    let name = name_of(&args[0])?;
    let values = args[from..].iter().map(|text| Template::parse(text, r));
    let values = values.collect::<Result<Vec<_>, _>>()?;
    let variable = r.shelf.of::<VariableTable>().assign(name)?;
    let compute = Box::new(move |r: &mut Request| {
        let values: Vec<_> = values.iter().map(|value| value.value(r).into_owned()).collect();
        make(r, &values).map_err(|why| {
            log::error!(&*r, "{directive}: {why}");
            500
        })
    });
    r.shelf.of::<WantedOps>().0.push(Op::Compute(variable, compute));
    Ok(())
}

type Made = Result<Vec<u8>, String>;

fn if_empty(_: &Request, values: &[Vec<u8>]) -> Made {
    let is_empty = values[0].is_empty();
    Ok(values[usize::from(is_empty)].clone())
}

// ---- quoting and escaping ------------------------------------------------------------------

fn quote_sql(_: &Request, values: &[Vec<u8>]) -> Made {
    let mut out = b"'".to_vec();
    push_sql(&values[0], true, &mut out);
    out.push(b'\'');
    Ok(out)
}

/// Text that is no UTF-8 has its bytes beyond ASCII in octal, with two backslashes each.
fn quote_pgsql(r: &Request, values: &[Vec<u8>]) -> Made {
    let quoted = quote_sql(r, values)?;
    if values[0].is_empty() {
        return Ok(quoted);
    }
    let is_text = std::str::from_utf8(&quoted).is_ok();
    let mut out = b"E".to_vec();
    for byte in quoted {
        match byte.is_ascii() || is_text {
            true => out.push(byte),
            false => out.extend(format!("\\\\{byte:03o}").into_bytes()),
        }
    }
    Ok(out)
}

fn quote_json(_: &Request, values: &[Vec<u8>]) -> Made {
    if values[0].is_empty() {
        return Ok(b"null".to_vec());
    }
    let mut out = b"\"".to_vec();
    push_json(&values[0], &mut out);
    out.push(b'"');
    Ok(out)
}

fn unescape_uri(_: &Request, values: &[Vec<u8>]) -> Made {
    let mut out = Vec::with_capacity(values[0].len());
    unescape(&values[0], Unescape::Form, &mut out);
    Ok(out)
}

fn escape_uri(_: &Request, values: &[Vec<u8>]) -> Made {
    let mut out = Vec::new();
    Escape::UriPart.push(&values[0], &mut out);
    Ok(out)
}

// ---- encodings -----------------------------------------------------------------------------

fn encode_base32(r: &Request, values: &[Vec<u8>]) -> Made {
    let loc = r.conf::<SetMisc>();
    Ok(loc.base32.encode(&values[0], loc.pads))
}

/// What cannot be read is empty; the other encodings end the request.
fn decode_base32(r: &Request, values: &[Vec<u8>]) -> Made {
    Ok(r.conf::<SetMisc>().base32.decode(&values[0]).unwrap_or_default())
}

fn encode_base64(_: &Request, values: &[Vec<u8>]) -> Made {
    Ok(STANDARD.encode(&values[0]).into_bytes())
}

fn decode_base64(_: &Request, values: &[Vec<u8>]) -> Made {
    digits::from_base64(&values[0]).ok_or_else(invalid)
}

fn encode_base64url(_: &Request, values: &[Vec<u8>]) -> Made {
    Ok(URL_SAFE_NO_PAD.encode(&values[0]).into_bytes())
}

fn decode_base64url(_: &Request, values: &[Vec<u8>]) -> Made {
    digits::from_base64_url(&values[0]).ok_or_else(invalid)
}

fn encode_hex(_: &Request, values: &[Vec<u8>]) -> Made {
    Ok(hex(&values[0]))
}

fn decode_hex(_: &Request, values: &[Vec<u8>]) -> Made {
    digits::from_hex(&values[0]).ok_or_else(invalid)
}

fn invalid() -> String {
    "invalid value".into()
}

// ---- hashes --------------------------------------------------------------------------------

fn sha1(_: &Request, values: &[Vec<u8>]) -> Made {
    Ok(hex(&Sha1::digest(&values[0])))
}

fn md5(_: &Request, values: &[Vec<u8>]) -> Made {
    Ok(hex(&Md5::digest(&values[0])))
}

fn hmac_sha1(_: &Request, values: &[Vec<u8>]) -> Made {
    mac::<Hmac<Sha1>>(values)
}

fn hmac_sha256(_: &Request, values: &[Vec<u8>]) -> Made {
    mac::<Hmac<Sha256>>(values)
}

/// The secret comes first.
fn mac<M: Mac + KeyInit>(values: &[Vec<u8>]) -> Made {
    let mut mac = <M as KeyInit>::new_from_slice(&values[0]).map_err(|e| e.to_string())?;
    mac.update(&values[1]);
    Ok(mac.finalize().into_bytes().to_vec())
}

// ---- numbers and letters -------------------------------------------------------------------

fn random(_: &Request, values: &[Vec<u8>]) -> Made {
    let bound = |at: usize, what: &str| {
        number(&values[at]).ok_or_else(|| format!("bad {what} argument: {}", Raw(&values[at])))
    };
    let (from, to) = sorted(bound(0, "\"from\"")?, bound(1, "\"to\"")?);
    let mut dice = [0; 8];
    getrandom::fill(&mut dice).map_err(|e| e.to_string())?;
    let drawn = from + u64::from_ne_bytes(dice) % (to - from + 1);
    Ok(drawn.to_string().into_bytes())
}

/// `$value from to`: one more than the value, within the bounds.
fn rotate(r: &Request, values: &[Vec<u8>]) -> Made {
    let bound = |at: usize, what: &str| {
        let bad = || format!("bad {what} argument value: \"{}\"", Raw(&values[at]));
        number(&values[at]).ok_or_else(bad)
    };
    let (from, to) = sorted(bound(1, "\"from\"")?, bound(2, "\"to\"")?);
    let turn = &r.conf::<SetMisc>().turn;
    let current = number(&values[0]);
    if current.is_none() && !values[0].is_empty() {
        log::error!(r, "set_rotate: bad current value: \"{}\"", Raw(&values[0]));
    }
    let next = current.or(turn.get()).map(|number| number + 1);
    let next = next.filter(|next| (from..=to).contains(next)).unwrap_or(from);
    turn.set(Some(next));
    Ok(next.to_string().into_bytes())
}

/// A number that is not negative; small enough that one may be added.
fn number(text: &[u8]) -> Option<u64> {
    let number = value::number(std::str::from_utf8(text).ok()?)?;
    (number <= i64::MAX as u64).then_some(number)
}

fn sorted(a: u64, b: u64) -> (u64, u64) {
    (a.min(b), a.max(b))
}

fn alphanum(_: &Request, values: &[Vec<u8>]) -> Made {
    letters(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", &values[0])
}

fn lcalpha(_: &Request, values: &[Vec<u8>]) -> Made {
    letters(b"abcdefghijklmnopqrstuvwxyz", &values[0])
}

/// As many letters as `length` says, each as likely as any other.
fn letters(alphabet: &[u8], length: &[u8]) -> Made {
    const LETTERS_MAX: u64 = 64;
    let count = number(length).filter(|count| (1..=LETTERS_MAX).contains(count));
    let count = count.ok_or_else(|| format!("bad \"length\" argument: {}", Raw(length)))? as usize;
    let fair = 256 / alphabet.len() * alphabet.len();
    let mut out = Vec::with_capacity(count);
    while out.len() < count {
        let mut dice = [0; LETTERS_MAX as usize];
        getrandom::fill(&mut dice).map_err(|e| e.to_string())?;
        let drawn = dice.iter().map(|die| usize::from(*die)).filter(|die| *die < fair);
        out.extend(drawn.take(count - out.len()).map(|die| alphabet[die % alphabet.len()]));
    }
    Ok(out)
}

// ---- the time ------------------------------------------------------------------------------

/// `2011-08-16`
fn today(_: &Request, _: &[Vec<u8>]) -> Made {
    let Calendar { year, month, day, .. } = Calendar::local(time::unix_seconds());
    Ok(format!("{year:04}-{month:02}-{day:02}").into_bytes())
}

fn gmt_time(_: &Request, values: &[Vec<u8>]) -> Made {
    formatted(&values[0], false)
}

fn local_time(_: &Request, values: &[Vec<u8>]) -> Made {
    formatted(&values[0], true)
}

fn formatted(format: &[u8], is_local: bool) -> Made {
    if format.is_empty() {
        return Ok(Vec::new());
    }
    let text = time::formatted(format, time::unix_seconds(), is_local);
    text.ok_or_else(|| format!("nothing, or too much, comes of \"{}\"", Raw(format)))
}

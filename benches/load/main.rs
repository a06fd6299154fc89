//! A load generator: requests leave when they are due, whether or not earlier ones have come back.
//!
//! ```text
//! load http://127.0.0.1:8080/ [--connections 64] [--rate 20000] [--seconds 10] [--pid PID]
//! load https://127.0.0.1:8443/ --handshakes full|resumed [--connections 16] …
//! ```
//! With a rate the loop is open: a latency counts from the moment the request was due, so a server
//! that stalls pays for everybody it kept waiting. Without one each connection asks again as soon
//! as it was answered, which measures throughput. One JSON object is printed; `cpu_us` is the CPU
//! time that the process tree under `--pid` spent per request.

mod cpu;
mod handshakes;
mod requests;

use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

/// What to do, from the command line.
pub struct Plan {
    pub address: SocketAddr,
    pub host: String,
    pub path: String,
    pub connections: usize,
    /// Requests per second; 0 for as many as there can be.
    pub rate: f64,
    pub time: Duration,
    pid: Option<i32>,
    handshakes: Option<String>,
}

/// What came of it.
#[derive(Default)]
pub struct Outcome {
    /// Of each answered request.
    pub latencies: Vec<Duration>,
    pub errors: u64,
    /// Handshakes that continued an earlier session.
    pub resumed: u64,
}

fn main() -> ExitCode {
    let plan = match plan() {
        Ok(plan) => plan,
        Err(e) => {
            eprintln!("load: {e}");
            return ExitCode::from(2);
        }
    };
    let before = plan.pid.map(cpu::of_tree);
    let started = std::time::Instant::now();
    let outcome = match plan.handshakes.as_deref() {
        None => requests::run(&plan),
        Some(kind) => handshakes::run(&plan, kind == "resumed"),
    };
    let cpu = plan.pid.map(|pid| cpu::of_tree(pid).saturating_sub(before.unwrap_or_default()));
    print(outcome, started.elapsed(), cpu);
    ExitCode::SUCCESS
}

fn print(mut outcome: Outcome, took: Duration, cpu: Option<Duration>) {
    outcome.latencies.sort_unstable();
    let n = outcome.latencies.len();
    let at = |percent: f64| {
        let index = (n as f64 * percent / 100.0).ceil() as usize;
        let latency = outcome.latencies.get(index.clamp(1, n.max(1)) - 1);
        latency.copied().unwrap_or_default().as_secs_f64() * 1e6
    };
    let percents = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 100.0];
    let latencies: serde_json::Map<String, serde_json::Value> =
        percents.iter().map(|p| (p.to_string(), at(*p).into())).collect();
    let per_request = cpu.map(|c| c.as_secs_f64() * 1e6 / n.max(1) as f64);
    let said = serde_json::json!({
        "requests": n, "errors": outcome.errors, "resumed": outcome.resumed,
        "seconds": took.as_secs_f64(), "per_second": n as f64 / took.as_secs_f64(),
        "cpu_us": per_request, "latency_us": latencies,
    });
    println!("{said}");
}

fn plan() -> Result<Plan, String> {
    use lexopt::prelude::*;
    let mut url = None;
    let (mut connections, mut rate, mut seconds) = (64, 0.0, 5.0);
    let (mut pid, mut handshakes) = (None, None);
    let mut args = lexopt::Parser::from_env();
    let shown = |e: lexopt::Error| e.to_string();
    while let Some(arg) = args.next().map_err(shown)? {
        let option = match arg {
            Long(option) => option.to_string(),
            Value(given) if url.is_none() => {
                url = Some(given.string().map_err(shown)?);
                continue;
            }
            other => return Err(other.unexpected().to_string()),
        };
        let value = args.value().map_err(shown)?;
        match option.as_str() {
            "connections" => connections = value.parse().map_err(shown)?,
            "rate" => rate = value.parse().map_err(shown)?,
            "seconds" => seconds = value.parse().map_err(shown)?,
            "pid" => pid = Some(value.parse().map_err(shown)?),
            "handshakes" => handshakes = Some(value.string().map_err(shown)?),
            _ => return Err(format!("no option --{option}")),
        }
    }
    let url = url.ok_or("a URL is needed")?;
    let (_, rest) = url.split_once("://").ok_or(format!("not a URL: {url}"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut addresses = host.to_socket_addrs().map_err(|e| format!("{host}: {e}"))?;
    let address = addresses.next().ok_or(format!("{host}: no address"))?;
    let (host, path) = (host.to_string(), format!("/{path}"));
    let time = Duration::from_secs_f64(seconds);
    Ok(Plan { address, host, path, connections, rate, time, pid, handshakes })
}

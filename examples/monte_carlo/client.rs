//! A typed client: prices an option on all workers at once and compares with the exact price.
//!
//!     cargo run --release --example price
//!
//! It cuts the simulation into tasks, takes the estimates as they come, and puts them together.

mod messages;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use messages::{Estimate, Request, Terms};
use pinmesh_client::{Client, DEFAULT_BROKER, Error};

/// Tasks under way at a time: enough to keep every worker of a host busy, few enough that a run
/// that is broken off leaves little behind.
const WINDOW: usize = 256;

/// Prices a European call by simulation, on every worker that serves `price`.
#[derive(Parser)]
#[command(allow_negative_numbers = true)]
struct Flags {
    /// Broker to submit to
    #[arg(long, default_value = DEFAULT_BROKER)]
    broker: String,
    /// Tasks to cut the simulation into
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..))]
    tasks: u32,
    /// Paths that each task simulates
    #[arg(long, default_value_t = 250_000)]
    paths: u32,
    /// The same seed gives the same price, to the last digit
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Today's price of the share
    #[arg(long, default_value_t = 100.0)]
    spot: f64,
    /// The price at which it may be bought
    #[arg(long, default_value_t = 105.0)]
    strike: f64,
    /// Riskless interest a year
    #[arg(long, default_value_t = 0.03)]
    rate: f64,
    /// Standard deviation of a year's return
    #[arg(long, default_value_t = 0.2)]
    volatility: f64,
    /// Years until the day
    #[arg(long, default_value_t = 1.0)]
    years: f64,
}

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Messages of pinmesh name the cause and the remedy; nothing needs to be added.
            eprintln!("price: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<(), Error> {
    let Flags { tasks, paths, seed, spot, strike, rate, volatility, years, .. } = *flags;
    let terms = Terms { spot, strike, rate, volatility, years };
    let client = Client::connect(&flags.broker)?;

    // The input is an iterator: requests are made as the window has room for them.
    let requests = (0..u64::from(tasks)).map(|stream| Request { terms, paths, seed, stream });
    let started = Instant::now();
    let mut estimates: Vec<Option<Estimate>> = vec![None; tasks as usize];
    for (index, output) in client.map("price", requests, WINDOW) {
        // The first failure ends the run: dropping the map cancels what is under way.
        estimates[index] = Some(output?);
    }
    let took = started.elapsed().as_secs_f64();

    // Added up in the order of the tasks, not in that of their arrival: floating-point sums depend
    // on it, and the price should depend on the seed alone.
    let (mut sum, mut variance) = (0.0, 0.0);
    for estimate in estimates.into_iter().flatten() {
        sum += estimate.price;
        variance += estimate.standard_error * estimate.standard_error;
    }
    let price = sum / f64::from(tasks);
    let standard_error = variance.sqrt() / f64::from(tasks);
    let exact = black_scholes(&terms);
    let paths_per_second = f64::from(tasks) * f64::from(paths) / took;
    println!("simulated      {price:.6}  standard error {standard_error:.6}");
    println!("Black-Scholes  {exact:.6}  {:+.2} standard errors", (price - exact) / standard_error);
    println!("{tasks} tasks in {took:.2} s, {:.1} million paths/s", paths_per_second / 1e6);
    Ok(())
}

/// The exact price. Black and Scholes, "The Pricing of Options and Corporate Liabilities", 1973,
/// equation 13.
fn black_scholes(terms: &Terms) -> f64 {
    let Terms { spot, strike, rate, volatility, years } = *terms;
    let deviation = volatility * years.sqrt();
    let upper = ((spot / strike).ln() + (rate + volatility * volatility / 2.0) * years) / deviation;
    spot * normal_cdf(upper) - strike * (-rate * years).exp() * normal_cdf(upper - deviation)
}

fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)
}

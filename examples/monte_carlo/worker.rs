//! A typed worker: the service `price` simulates the price of an option.
//!
//!     cargo run --release --example price_worker
//!
//! Started like this it becomes a supervisor, which starts one worker process for each CPU, pinned
//! to it, and another one for each that dies. `--help` lists what can be set.

mod messages;

use std::fmt;
use std::process::ExitCode;

use messages::{Estimate, Request, Terms};
use pinmesh_worker::{Context, Worker};
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64;

/// Paths between two looks at whether anybody still wants the price: about a millisecond.
const PATHS_A_LOOK: u32 = 65_536;

/// Why there is no price. The client gets the text, so it says what to change.
enum PriceError {
    Terms { field: &'static str, value: f64 },
    Paths(u32),
    Cancelled { done: u32, paths: u32 },
}

impl fmt::Display for PriceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Terms { field, value } => {
                write!(f, "{field} is {value}; it must be a number above 0")
            }
            Self::Paths(paths) => {
                write!(f, "{paths} paths have no standard error; ask for 2 or more")
            }
            Self::Cancelled { done, paths } => write!(f, "cancelled after {done} of {paths} paths"),
        }
    }
}

/// The handler. It is a plain function: pinmesh decodes its input and encodes its result. The same
/// request gives the same estimate on any worker, so that a task that runs twice, because its first
/// worker was lost, does no harm.
fn price(context: &Context<'_>, request: Request) -> Result<Estimate, PriceError> {
    let Request { terms, paths, seed, stream } = request;
    check(&terms)?;
    if paths < 2 {
        return Err(PriceError::Paths(paths));
    }
    let mut random = Pcg64::new(seed.into(), stream.into());
    let Terms { spot, strike, rate, volatility, years } = terms;
    let drift = (rate - volatility * volatility / 2.0) * years;
    let diffusion = volatility * years.sqrt();
    let discount = (-rate * years).exp();
    let (mut sum, mut squares) = (0.0, 0.0);
    for path in 0..paths {
        // A handler is never interrupted: it sees for itself that its client has gone away.
        if path % PATHS_A_LOOK == 0 && context.is_cancelled() {
            return Err(PriceError::Cancelled { done: path, paths });
        }
        let normal: f64 = StandardNormal.sample(&mut random);
        let end = spot * (drift + diffusion * normal).exp();
        let payoff = discount * (end - strike).max(0.0);
        sum += payoff;
        squares += payoff * payoff;
    }
    let paths = f64::from(paths);
    let price = sum / paths;
    let variance = (squares - sum * price) / (paths - 1.0);
    Ok(Estimate { price, standard_error: (variance.max(0.0) / paths).sqrt() })
}

fn check(terms: &Terms) -> Result<(), PriceError> {
    let Terms { spot, strike, rate, volatility, years } = *terms;
    let fields = [("spot", spot), ("strike", strike), ("volatility", volatility), ("years", years)];
    // Written so that NaN fails too.
    let is_positive = |value: f64| value > 0.0 && value.is_finite();
    match fields.into_iter().find(|(_, value)| !is_positive(*value)) {
        Some((field, value)) => Err(PriceError::Terms { field, value }),
        None if !rate.is_finite() => Err(PriceError::Terms { field: "rate", value: rate }),
        None => Ok(()),
    }
}

fn main() -> ExitCode {
    Worker::new().service("price", price).main()
}

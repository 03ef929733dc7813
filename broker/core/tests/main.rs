//! The broker's machine from outside: one behaviour a test, then random events against what is
//! promised and against a naive scheduler.

mod support;

mod abuse;
mod bounds;
mod cancels;
mod credit;
mod dead;
mod fairness;
mod gates;
mod hostile;
mod hosts;
mod inherited;
mod keys;
mod labels;
mod later;
mod losses;
mod operator;
mod overload;
mod progress;
mod ready;
mod recall;
mod replays;
mod results;
mod retries;
mod scheduling;
mod services;
mod sessions;
mod workers;

mod model;
mod random;

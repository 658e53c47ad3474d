//! The `twinflash` command: a local IoT hub, a device agent, and the back end's side of firmware
//! updates.
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod agent;
mod ask;
mod cloud;
mod config;
mod configuration;
mod control;
mod demo;
mod devices;
mod error;
mod firmware;
mod follow;
mod guard;
mod hub;
mod image;
mod job;
mod key;
mod log;
mod query;
mod rollout;
mod screen;
mod service;
mod signals;
mod simulate;
mod table;
mod telemetry;
mod twin;
mod update;

use clap::{Parser, Subcommand};
use error::Error;
use screen::Screen;
use std::{path::PathBuf, process::ExitCode};
use twinflash::tls::Roots;

/// Firmware updates for devices on Azure IoT Hub, with or without the cloud.
#[derive(Parser)]
#[command(
    name = "twinflash",
    version,
    arg_required_else_help = true,
    after_help = "Start with: twinflash demo\n\n\
        Connection strings may be given as @FILE (a file that holds one), or in the environment:\n\
        TWINFLASH_SERVICE for the back end's, TWINFLASH_DEVICE for a device's. Arguments are visible\n\
        to other users of this machine; files and the environment are not.\n\n\
        The exit status is 0 only if what was asked for has happened."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

/// What every command takes.
#[derive(clap::Args)]
struct Common {
    /// Print one JSON object a line
    #[arg(long, global = true)]
    json: bool,
    /// Trust the certificate authorities in this PEM file to vouch for the hub, and no others
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Common {
    /// The certificate authorities a hub's certificate must come from.
    fn roots(&self) -> Result<Roots, Error> {
        match &self.ca {
            Some(file) => Ok(Roots::from_pem_file(file)?),
            None => Ok(Roots::BuiltIn),
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Show an update from end to end: hub, firmware server, device and back end in one process
    Demo(demo::Demo),
    /// Run a local IoT hub
    Hub(hub::Hub),
    /// Run the device agent
    Device(agent::Agent),
    /// Before the application starts: count the start of a new version, roll it back after too many
    Guard(guard::Guard),
    Simulate(simulate::Simulate),
    /// Ask a device for an update and follow it
    Update(update::Update),
    /// Follow an update that is under way
    Watch(update::Watch),
    /// Firmware images
    #[command(subcommand)]
    Image(image::Image),
    #[command(subcommand)]
    Key(key::Key),
    /// Ask the hub in its query language
    Query(query::Query),
    #[command(subcommand)]
    Devices(devices::Devices),
    #[command(subcommand)]
    Twin(twin::Twin),
    #[command(subcommand, name = "config")]
    Configuration(configuration::Configurations),
    #[command(subcommand)]
    Job(job::Jobs),
}

fn main() -> ExitCode {
    let Cli { command, common } = Cli::parse();
    let screen = Screen::new(common.json);
    let done = match command {
        Command::Demo(demo) => demo.run(&screen),
        Command::Hub(hub) => hub.run(&screen),
        Command::Device(agent) => agent.run(&common, screen.clone()),
        Command::Simulate(simulate) => simulate.run(&common, &screen),
        Command::Guard(guard) => guard.run(&screen),
        Command::Update(update) => update.run(&common, &screen),
        Command::Watch(watch) => watch.run(&common, &screen),
        Command::Image(image) => image.run(&screen),
        Command::Key(key) => key.run(&screen),
        Command::Query(query) => query.run(&common, &screen),
        Command::Devices(devices) => devices.run(&common, &screen),
        Command::Twin(twin) => twin.run(&common, &screen),
        Command::Configuration(configuration) => configuration.run(&common, &screen),
        Command::Job(job) => job.run(&common, &screen),
    };
    let code = match done {
        Ok(true) => ExitCode::SUCCESS,
        // What went wrong has been shown.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            screen.error(&error);
            ExitCode::from(error.status())
        }
    };
    screen.finish();
    code
}

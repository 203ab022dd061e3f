//! Vsock, by way of a guest that sends back what it receives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vmoon_core::spec::Guest as MachineGuest;
use vmoon_core::vm::{ExecRequest, Host, Process, Vm};
use vmoon_core::vsock::VsockStream;
use vmoon_core::{Code, Error, Result, VsockPort};

use super::figure::{Figure, Samples};
use super::guest;
use super::plan::Plan;
use super::socket_pair::{self, Echo};

const PORT: VsockPort = VsockPort(5000);
const PIECE: usize = 64 << 10;

/// How long one transfer should take.
const TRANSFER: Duration = Duration::from_millis(400);

/// How much may be sent to find out how fast it goes, and at most.
const PROBE: usize = 1 << 20;
const MOST: usize = 512 << 20;

/// What was measured.
#[derive(Debug)]
pub(super) struct Traffic {
    pub(super) round_trip: Figure,
    /// In MiB/s, with as much going the other way at the same time.
    pub(super) host_to_guest: f64,
    /// In MiB/s, likewise.
    pub(super) guest_to_host: f64,
    /// In MiB/s: a pair of Unix sockets, one way.
    pub(super) socket_pair: f64,
}

/// Measures one idle stream, then the same stream under load.
pub(super) async fn measure(host: &Arc<Host>, plan: &Plan) -> Result<Traffic> {
    let vm = guest::boot(host, plan, plan.memory).await?;
    let (_server, mut stream) = connect(&vm).await?;
    let round_trip = round_trips(&mut stream, plan).await?;

    let begun = Instant::now();
    transfer(&mut stream, PROBE).await?;
    let seconds = begun.elapsed().as_secs_f64().max(1e-6);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a positive number of bytes, roughly"
    )]
    let length = (PROBE as f64 * TRANSFER.as_secs_f64() / seconds) as usize;
    let length = length.clamp(PROBE, MOST);
    let (mut sent, mut received, mut pair) =
        (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..3 {
        let (there, back) = transfer(&mut stream, length).await?;
        sent.push(there);
        received.push(back);
        pair.push(socket_pair::one_way(MOST / 8, PIECE).map_err(failed)?);
    }
    vm.close();
    Ok(Traffic {
        round_trip,
        host_to_guest: mib_a_second(length, sent.p50()),
        guest_to_host: mib_a_second(length, received.p50()),
        socket_pair: mib_a_second(MOST / 8, pair.p50()),
    })
}

/// Starts the guest's server and connects to it as soon as it listens.
async fn connect(vm: &Vm) -> Result<(Process, VsockStream)> {
    let micro = vm.spec().guest == MachineGuest::Micro;
    let server = if micro { "echo-server" } else { "vmoon-agent echo-server" };
    let server = vm.spawn(ExecRequest::shell(format!("{server} {PORT}"))).await?;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match vm.connect(PORT, Some(Duration::from_secs(10))).await {
            Ok(stream) => return Ok((server, stream)),
            Err(error) if error.code() != Code::VsockRefused || Instant::now() > deadline => {
                return Err(error);
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn round_trips(stream: &mut VsockStream, plan: &Plan) -> Result<Figure> {
    let mut pair = Echo::start().map_err(failed)?;
    let (mut times, mut floors) = (Samples::default(), Samples::default());
    for round in 0..plan.rounds + 5 {
        let begun = Instant::now();
        stream.write_all(&[1]).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        stream.read_exact(&mut [0]).await.map_err(failed)?;
        let time = begun.elapsed();
        let least = pair.round_trip().map_err(failed)?;
        if round >= 5 {
            times.push(time);
            floors.push(least);
        }
    }
    let about = "one byte there and back (floor: a pair of Unix sockets)";
    Ok(Figure::new("vsock_rtt", about, times).with_floor(floors))
}

/// Sends `length` bytes and receives them again: the time until the last was taken, and the time
/// from the first to the last that came back.
async fn transfer(stream: &mut VsockStream, length: usize) -> Result<(Duration, Duration)> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let send = async {
        let data = vec![0x5a; PIECE];
        let begun = Instant::now();
        let mut left = length;
        while left > 0 {
            let some = left.min(PIECE);
            writer.write_all(&data[..some]).await?;
            left -= some;
        }
        writer.flush().await?;
        Ok(begun.elapsed())
    };
    let receive = async {
        let mut buffer = vec![0; PIECE];
        let mut begun = None;
        let mut left = length;
        while left > 0 {
            let some = left.min(PIECE);
            let count = reader.read(&mut buffer[..some]).await?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            begun.get_or_insert_with(Instant::now);
            left -= count;
        }
        Ok(begun.map_or(Duration::ZERO, |begun| begun.elapsed()))
    };
    tokio::try_join!(send, receive).map_err(failed)
}

fn mib_a_second(length: usize, time: Duration) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "less than 2^52 bytes are sent")]
    let mib = length as f64 / f64::from(1 << 20);
    mib / time.as_secs_f64().max(1e-9)
}

fn failed(error: std::io::Error) -> Error {
    Error::new(Code::VsockReset, "a stream broke while it was measured").with_source(error)
}

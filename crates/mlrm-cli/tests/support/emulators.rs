//! Stores of others, which a test starts on this machine and fills.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Home, skipped};

/// Waits until something is so.
#[track_caller]
pub fn wait_for(what: &str, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A store of others, on a port of its own.
pub struct Emulator {
    server: Child,
    pub endpoint: String,
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Emulator {
    /// Starts it by the command that `of_port` gives, and waits until it listens.
    fn start(of_port: impl Fn(&str) -> Command) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|free| free.local_addr())
            .expect("a port")
            .port();
        let mut server = of_port(&port.to_string());
        server.stdout(Stdio::null()).stderr(Stdio::null());
        let emulator = Self {
            server: server.spawn().expect("an emulator"),
            endpoint: format!("http://127.0.0.1:{port}"),
        };
        wait_for("an emulator", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        emulator
    }

    /// Hands its endpoint and everything below `stores/shop` to a program, which puts it into the store.
    fn fill(&self, home: &Home, put: &mut Command) {
        put.arg(&self.endpoint).arg(home.path("stores/shop"));
        let put = put.output().expect("a program");
        assert!(put.status.success(), "{put:?}");
    }
}

/// Starts moto, and puts everything below `stores/shop` into its bucket `shop`.
pub fn moto(test: &str, home: &Home) -> Option<Emulator> {
    const PUT: &str = "import sys, pathlib, boto3
endpoint, root = sys.argv[1:]
s3 = boto3.client('s3', endpoint_url=endpoint, region_name='us-east-1')
s3.create_bucket(Bucket='shop')
root = pathlib.Path(root)
for path in root.rglob('*'):
    if path.is_file():
        s3.put_object(Bucket='shop', Key=str(path.relative_to(root)), Body=path.read_bytes())
";
    let Some(python) = std::env::var_os("MLRM_PYTHON") else {
        skipped(test, "moto", "MLRM_PYTHON names no Python");
        return None;
    };
    let has = Command::new(&python)
        .args(["-c", "import moto.server, boto3"])
        .output();
    if !has.is_ok_and(|has| has.status.success()) {
        skipped(
            test,
            "moto",
            "the Python of MLRM_PYTHON has no moto[server]",
        );
        return None;
    }
    let moto = Emulator::start(|port| {
        let mut server = Command::new(&python);
        server.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", port]);
        server
    });
    let mut put = Command::new(&python);
    put.args(["-c", PUT])
        .env("AWS_ACCESS_KEY_ID", "x")
        .env("AWS_SECRET_ACCESS_KEY", "x");
    moto.fill(home, &mut put);
    Some(moto)
}

/// Starts Azurite, and puts everything below `stores/shop` into its container `shop`.
pub fn azurite(test: &str, home: &Home) -> Option<Emulator> {
    // The account and its key are those that every Azurite has.
    const PUT: &str = r"const [endpoint, root] = process.argv.slice(1);
const crypto = require('crypto'), fs = require('fs'), path = require('path');
const account = 'devstoreaccount1';
const key = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==';
async function put(place, more, body) {
  const headers = {'x-ms-date': new Date().toUTCString(), 'x-ms-version': '2021-08-06', ...more};
  const named = Object.keys(headers).sort().map(name => `${name}:${headers[name]}\n`).join('');
  const query = place.includes('?') ? '\nrestype:container' : '';
  const signed = 'PUT\n\n\n' + (body.length || '') + '\n\n\n\n\n\n\n\n\n' + named
    + `/${account}/${account}/${place.split('?')[0]}${query}`;
  const hash = crypto.createHmac('sha256', Buffer.from(key, 'base64')).update(signed).digest('base64');
  headers.Authorization = `SharedKey ${account}:${hash}`;
  const answer = await fetch(`${endpoint}/${account}/${place}`, {method: 'PUT', headers, body});
  if (answer.status != 201) throw new Error(`${place}: ${answer.status} ${await answer.text()}`);
}
(async () => {
  await put('shop?restype=container', {}, Buffer.alloc(0));
  for (const name of fs.readdirSync(root, {recursive: true})) {
    const file = path.join(root, name);
    if (fs.statSync(file).isFile())
      await put('shop/' + name, {'x-ms-blob-type': 'BlockBlob'}, fs.readFileSync(file));
  }
})();
";
    let Some(program) = std::env::var_os("MLRM_AZURITE") else {
        skipped(test, "azurite", "MLRM_AZURITE names no azurite-blob");
        return None;
    };
    let azurite = Emulator::start(|port| {
        let mut server = Command::new(&program);
        server
            .args([
                "--inMemoryPersistence",
                "--skipApiVersionCheck",
                "--disableTelemetry",
            ])
            .args(["--blobHost", "127.0.0.1", "--blobPort", port]);
        server
    });
    azurite.fill(home, Command::new("node").args(["-e", PUT]));
    Some(azurite)
}

//! Temporary PostgreSQL servers on the loopback, and a database per test on a server that all tests of a
//! process share.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

use crate::Engine;
use crate::guarded::{GuardedProcess, file, folder, own, run, unprivileged};

/// A temporary server's data need not survive, so it does not wait for the disk.
const CARELESS: [&str; 9] = [
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "autovacuum=off",
    "deadlock_timeout=100ms",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_connections=400",
    // The prefix has the database's name, so that a line of the log belongs to one test.
    "log_line_prefix=%m [%p] %d: ",
];

const PATIENCE: Duration = Duration::from_mins(1);

/// A temporary PostgreSQL server. Its superuser is `ward`, without a password.
pub struct Server {
    /// The port on 127.0.0.1 where it listens.
    pub port: u16,
    program: GuardedProcess,
    orders: Sender<Order>,
}

/// A statement for the server's keeper thread, and the channel for its outcome.
struct Order {
    sql: String,
    done: Option<Sender<Result<(), String>>>,
}

/// A database for one test, which is dropped with this value.
pub struct Database {
    /// The URL, with the superuser `ward`.
    pub url: String,
    /// The name of the database on its server.
    pub name: String,
    orders: Sender<Order>,
}

impl Database {
    /// The number that a query returns.
    ///
    /// # Panics
    ///
    /// The query fails, or returns anything else.
    pub fn number(&self, query: &str) -> i64 {
        let found = lines(&self.url, query);
        found
            .first()
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("{query} gave {found:?}"))
    }

    /// Runs statements in the database.
    ///
    /// # Panics
    ///
    /// A statement fails.
    pub fn run(&self, sql: &str) {
        lines(&self.url, sql);
    }
}

/// Runs statements in the database at a URL; returns the first column of their rows as text. It uses a thread
/// of its own, because the caller may already be inside a runtime.
///
/// # Panics
///
/// A statement fails.
pub fn lines(url: &str, sql: &str) -> Vec<String> {
    use tokio_postgres::SimpleQueryMessage::Row;
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            tokio::spawn(async move { drop(connection.await) });
            client.simple_query(sql).await
        })
    };
    let rows = std::thread::scope(|scope| scope.spawn(work).join().expect("an answer"));
    let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let text = |message| if let Row(row) = message { row.get(0).map(str::to_owned) } else { None };
    rows.into_iter().filter_map(text).collect()
}

impl Drop for Database {
    fn drop(&mut self) {
        // The remaining sessions are disconnected, and the test does not wait for that.
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let _ = self.orders.send(Order { sql, done: None });
    }
}

/// The server that the tests of this process share.
pub fn shared() -> &'static Server {
    static SHARED: LazyLock<Server> = LazyLock::new(|| Server::start(&[], |_| {}));
    &SHARED
}

/// The folder that contains PostgreSQL's programs.
pub(crate) fn programs() -> PathBuf {
    let has = |folder: &PathBuf| folder.join("initdb").exists() && folder.join("postgres").exists();
    if let Some(named) = std::env::var_os("WARD_TEST_POSTGRES_BIN").map(PathBuf::from) {
        assert!(has(&named), "WARD_TEST_POSTGRES_BIN={} has no initdb and postgres", named.display());
        return named;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<PathBuf> = debian.map(|entry| entry.path().join("bin")).collect();
    let version = |folder: &PathBuf| {
        let name = folder.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        name.and_then(|name| name.parse::<u32>().ok())
    };
    debian.sort_by_key(version);
    std::env::split_paths(&path).chain(debian.into_iter().rev()).find(has).unwrap_or_else(|| {
        panic!(
            "every test runs on PostgreSQL too, and its programs initdb and postgres were not found.\n\
             Install them (Debian, Ubuntu: apt-get install postgresql), or name their folder in \
             WARD_TEST_POSTGRES_BIN.\nTo leave PostgreSQL out nevertheless: WARD_TEST_ENGINES=sqlite"
        )
    })
}

/// The path of a program of the server, which may be in another folder: distributions link the programs to
/// different places.
///
/// # Panics
///
/// The program does not exist.
pub fn beside(name: &str) -> PathBuf {
    let folder = programs();
    let real = std::fs::canonicalize(folder.join("postgres")).expect("a server's program");
    let others = real.parent().map(Path::to_owned);
    let found = [folder].into_iter().chain(others).map(|folder| folder.join(name)).find(|file| file.exists());
    found.unwrap_or_else(|| {
        panic!("PostgreSQL's {name} was not found: name its folder in WARD_TEST_POSTGRES_BIN")
    })
}

/// A process's state and its parent, as Linux reports them.
fn state(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before them may contain any character, brackets included.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn children(of: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("Linux's list of processes").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| state(pid).is_some_and(|(_, parent)| parent == of)).collect()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound address").port()
}

impl Server {
    /// Starts a server with further settings (`name=value`). `prepare` may put files into its data folder
    /// with [`put`]; the data folder is also its working directory.
    ///
    /// # Panics
    ///
    /// PostgreSQL is left out. A test that needs it must be made by `postgres_only!`, and then does not run.
    pub fn start(settings: &[&str], prepare: impl Fn(&Path)) -> Self {
        assert!(
            !Engine::Postgres.is_left_out(),
            "WARD_TEST_ENGINES leaves PostgreSQL out, but a test starts it: make the test with `postgres_only!`"
        );
        // Another process may take the free port before the server listens on it.
        for _ in 0..5 {
            let folder = folder();
            let data = folder.join("data");
            initialize(&data);
            prepare(&data);
            if let Some(server) = Self::launch(folder, settings) {
                return server;
            }
        }
        panic!("no port stayed free for a PostgreSQL server");
    }

    /// Starts a server on a folder that remains after the server ends. The folder is created if needed. The
    /// server does not wait for the disk, unless `settings` say otherwise.
    ///
    /// # Panics
    ///
    /// The server cannot be started there.
    pub fn kept(data: &Path, settings: &[&str]) -> Self {
        if !data.join("PG_VERSION").exists() {
            std::fs::create_dir_all(data).expect("a folder for a server's data");
            own(data);
            initialize(data);
        }
        for _ in 0..5 {
            if let Some(server) = Self::launch_on(folder(), data, "INT", settings) {
                return server;
            }
        }
        panic!("no port stayed free for a PostgreSQL server");
    }

    /// Starts a server on the data in a folder. `None`: its port was taken meanwhile.
    pub(crate) fn launch(folder: PathBuf, settings: &[&str]) -> Option<Self> {
        let data = folder.join("data");
        Self::launch_on(folder, &data, "QUIT", settings)
    }

    fn launch_on(folder: PathBuf, data: &Path, end: &str, settings: &[&str]) -> Option<Self> {
        let port = free_port();
        let data = data.display().to_string();
        let port_text = port.to_string();
        let mut arguments = vec!["-D", &data, "-p", &port_text, "-h", "127.0.0.1", "-k", ""];
        for setting in CARELESS.iter().chain(settings) {
            arguments.extend(["-c", setting]);
        }
        let program = GuardedProcess::start(folder, end, &programs().join("postgres"), &arguments);
        keeper(port, &program).map(|orders| Self { port, program, orders })
    }

    /// The process id of its first process, the parent of all others.
    ///
    /// # Panics
    ///
    /// The server does not run.
    pub fn pid(&self) -> u32 {
        let file = std::fs::read_to_string(self.program.folder().join("data/postmaster.pid"));
        let file = file.expect("a server's pid");
        file.lines().next().and_then(|pid| pid.parse().ok()).expect("a server's pid")
    }

    /// The folder with its data and its log, which is deleted with this value.
    pub fn folder(&self) -> &Path {
        self.program.folder()
    }

    /// Kills its first process; the other processes notice that and end.
    pub fn kill(&self) {
        run(unprivileged("kill").args(["-s", "KILL", &self.pid().to_string()]));
    }

    /// Ends all its processes at once, like a power cut. The operating system still writes unflushed data. So
    /// this shows recovery from the log, and not what a disk loses.
    ///
    /// # Panics
    ///
    /// The processes do not end.
    pub fn cut_power(&self) {
        let pid = std::fs::read_to_string(self.program.folder().join("data/postmaster.pid"))
            .expect("a server's pid");
        let first: u32 = pid.lines().next().and_then(|pid| pid.trim().parse().ok()).expect("a server's pid");
        // The first process is stopped while the others are searched, so that it starts no more of them.
        run(unprivileged("kill").args(["-s", "STOP", &first.to_string()]));
        let mut all = children(first);
        all.push(first);
        let ids: Vec<String> = all.iter().map(ToString::to_string).collect();
        // One of them may have ended by itself meanwhile.
        let _ = unprivileged("kill").args(["-s", "KILL"]).args(&ids).output();
        let began = Instant::now();
        while all.iter().any(|&pid| state(pid).is_some_and(|(state, _)| state != 'Z')) {
            assert!(began.elapsed() < PATIENCE, "killed processes of PostgreSQL do not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Starts the server again on the data that [`Server::cut_power`] left, and waits for its recovery.
    ///
    /// # Panics
    ///
    /// The server does not recover.
    pub fn revive(&mut self) {
        self.program.again();
        self.orders = keeper(self.port, &self.program).expect("its port");
    }

    /// Stops all its processes: its connections stay, the system accepts more for it, and nothing is ever
    /// answered. Dropping the result kills the processes.
    ///
    /// # Panics
    ///
    /// The server does not run.
    pub fn freeze(&self) -> Frozen {
        let first = self.pid();
        let stop = |pids: &[u32]| {
            let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
            // One of them may have ended by itself meanwhile.
            let _ = unprivileged("kill").args(["-s", "STOP"]).args(&pids).output();
            pids
        };
        // The first process is stopped alone, so that it starts no other meanwhile.
        let mut stopped = stop(&[first]);
        stopped.extend(stop(&children(first)));
        Frozen(stopped)
    }

    /// The text of the server's log so far.
    pub fn log(&self) -> String {
        self.program.log()
    }

    /// All files of the database with this `pg_database.oid`, byte for byte.
    ///
    /// # Panics
    ///
    /// The files cannot be read.
    pub fn at_rest(&self, oid: i64) -> Vec<u8> {
        self.sql("CHECKPOINT");
        let folder = self.program.folder().join("data/base").join(oid.to_string());
        let files = std::fs::read_dir(folder).expect("a database's folder");
        files.flat_map(|file| std::fs::read(file.expect("an entry").path()).unwrap_or_default()).collect()
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://ward@127.0.0.1:{}/{database}", self.port)
    }

    /// One of PostgreSQL's own tools, such as `pg_dump`, set up for this server.
    pub fn tool(&self, name: &str) -> std::process::Command {
        let mut tool = unprivileged(beside(name));
        let port = self.port.to_string();
        tool.args(["--host=127.0.0.1", "--username=ward", "--no-password", "--port", &port]);
        tool
    }

    /// Runs one statement as the superuser.
    ///
    /// # Panics
    ///
    /// The statement fails.
    pub fn sql(&self, sql: impl Into<String>) {
        let (done, answer) = channel();
        let sql = sql.into();
        self.orders.send(Order { sql: sql.clone(), done: Some(done) }).expect("a keeper");
        answer.recv().expect("an answer").unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// A new database without tables, for one test.
    pub fn database(&self) -> Database {
        self.copy("template0")
    }

    /// A copy of a template database. The first call with this name creates the template, and `fill` fills it
    /// by its URL.
    pub fn copy_of(&self, template: &'static str, fill: impl FnOnce(&str)) -> Database {
        static FILLED: Mutex<BTreeSet<(u16, &str)>> = Mutex::new(BTreeSet::new());
        {
            let mut filled = FILLED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if !filled.contains(&(self.port, template)) {
                self.sql(format!("CREATE DATABASE {template}"));
                fill(&self.url(template));
                filled.insert((self.port, template));
            }
        }
        self.copy(template)
    }

    fn copy(&self, template: &str) -> Database {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        // The server does not wait for the disk, so copying files is cheaper than logging their pages.
        self.sql(format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"));
        Database { url: self.url(&name), name, orders: self.orders.clone() }
    }
}

fn initialize(data: &Path) {
    let options = ["-U", "ward", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"];
    run(unprivileged(programs().join("initdb")).arg("-D").arg(data).args(options));
}

/// Stopped processes of a server. Dropping this value kills them, because they handle no other signal.
pub struct Frozen(Vec<String>);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = unprivileged("kill").args(["-s", "KILL"]).args(&self.0).output();
    }
}

/// Puts a file into a server's data folder, readable only by the server's user.
pub fn put(data: &Path, name: &str, content: &[u8]) {
    file(&data.join(name), content);
}

/// Starts a thread with a connection, which executes its orders in sequence. `None`: the server ended because
/// its port was taken. The thread has its own runtime, because callers may be inside a runtime already.
fn keeper(port: u16, program: &GuardedProcess) -> Option<Sender<Order>> {
    let (orders, waiting) = channel::<Order>();
    let (ready, answers) = channel();
    std::thread::Builder::new()
        .name("postgres-keeper".into())
        .spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let client = loop {
                match runtime.block_on(connect(port)) {
                    Ok(client) => break client,
                    Err(error) if ready.send(Some(error.to_string())).is_err() => return,
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            };
            let _ = ready.send(None);
            for order in waiting {
                let done = runtime.block_on(client.batch_execute(&order.sql)).map_err(|error| {
                    error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string)
                });
                if let Some(answer) = order.done {
                    let _ = answer.send(done);
                }
            }
        })
        .expect("a thread");
    let started = Instant::now();
    while let Some(error) = answers.recv().expect("a keeper") {
        if program.log().contains("could not bind") {
            return None;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "the PostgreSQL server does not answer: {error}\n{}",
            program.log()
        );
    }
    Some(orders)
}

async fn connect(port: u16) -> Result<Client, tokio_postgres::Error> {
    let config = format!("host=127.0.0.1 port={port} user=ward dbname=postgres connect_timeout=5");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// A pgbouncer in transaction mode in front of a [`Server`].
pub struct Pooler {
    /// The port on 127.0.0.1 where it listens.
    pub port: u16,
    program: GuardedProcess,
}

impl Pooler {
    /// Starts a pgbouncer with at most `connections` connections to each of the server's databases.
    pub fn start(server: &Server, connections: u32) -> Self {
        Self::with(server, connections, "")
    }

    /// Starts a pgbouncer that also limits the number of its clients.
    pub fn for_clients(server: &Server, connections: u32, clients: u32) -> Self {
        Self::with(server, connections, &format!("max_client_conn = {clients}\n"))
    }

    fn with(server: &Server, connections: u32, more: &str) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let known = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
        let program = std::env::split_paths(&path).chain(known).map(|folder| folder.join("pgbouncer"));
        let program = program.into_iter().find(|file| file.exists()).unwrap_or_else(|| {
            panic!(
                "PostgreSQL is tested through pgbouncer too, which was not found.\n\
                 Install it (Debian, Ubuntu: apt-get install pgbouncer).\n\
                 To leave PostgreSQL out nevertheless: WARD_TEST_ENGINES=sqlite"
            )
        });
        let (folder, port) = (folder(), free_port());
        let users = folder.join("users");
        file(&users, b"\"ward\" \"\"\n");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = {connections}\nserver_round_robin = 1\n{more}",
            server.port,
            users.display()
        );
        let ini = folder.join("pgbouncer.ini");
        file(&ini, settings.as_bytes());
        let program = GuardedProcess::start(folder, "TERM", &program, &[&ini.display().to_string()]);
        let started = Instant::now();
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(started.elapsed() < PATIENCE, "pgbouncer does not answer:\n{}", program.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { port, program }
    }

    /// The log of pgbouncer so far.
    pub fn log(&self) -> String {
        self.program.log()
    }
}

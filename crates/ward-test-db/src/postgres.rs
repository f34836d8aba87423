//! Throw-away PostgreSQL servers on the loopback, and a database per test on one that all tests of a process share.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

use crate::Engine;
use crate::guarded::{Guarded, file, folder, own, run, unprivileged};

/// Nothing on a throw-away server is to survive, so it waits for no disk.
const CARELESS: [&str; 9] = [
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "autovacuum=off",
    "deadlock_timeout=100ms",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_connections=400",
    // The database's name: what a server says is of one test or of another.
    "log_line_prefix=%m [%p] %d: ",
];

const PATIENCE: Duration = Duration::from_mins(1);

/// A PostgreSQL server of the tests' own. The superuser is `ward`, without a password.
pub struct Server {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    program: Guarded,
    orders: Sender<Order>,
}

/// A statement for the server's keeper, and where to say that it is done.
struct Order {
    sql: String,
    done: Option<Sender<Result<(), String>>>,
}

/// A database of one test's own; gone with this.
pub struct Database {
    /// Where it is.
    pub url: String,
    /// Its name.
    pub name: String,
    orders: Sender<Order>,
}

impl Database {
    /// One number from it.
    ///
    /// # Panics
    ///
    /// When the query fails or gives anything else.
    pub fn number(&self, query: &str) -> i64 {
        let found = lines(&self.url, query);
        found
            .first()
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("{query} gave {found:?}"))
    }

    /// Runs statements in it.
    ///
    /// # Panics
    ///
    /// When one fails.
    pub fn run(&self, sql: &str) {
        lines(&self.url, sql);
    }
}

/// Runs statements in the database at a URL: the first column of their rows, as text. On a thread of its own, because who
/// asks may stand in a runtime already.
///
/// # Panics
///
/// When one of the statements fails.
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
        // Whoever is left in it is disconnected. Nobody waits for that.
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let _ = self.orders.send(Order { sql, done: None });
    }
}

/// The server that the tests of this process share.
pub fn shared() -> &'static Server {
    static SHARED: LazyLock<Server> = LazyLock::new(|| Server::start(&[], |_| {}));
    &SHARED
}

/// The folder of PostgreSQL's programs.
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
            "every test runs on PostgreSQL too, and its programs initdb and postgres are not to be found.\n\
             Install them (Debian, Ubuntu: apt-get install postgresql), or name their folder in \
             WARD_TEST_POSTGRES_BIN.\nTo leave PostgreSQL out all the same: WARD_TEST_ENGINES=sqlite"
        )
    })
}

/// A program that belongs to the server's but may not lie beside them: distributions link them to different places.
///
/// # Panics
///
/// When it is not there.
pub fn beside(name: &str) -> PathBuf {
    let folder = programs();
    let real = std::fs::canonicalize(folder.join("postgres")).expect("a server's program");
    let others = real.parent().map(Path::to_owned);
    let found = [folder].into_iter().chain(others).map(|folder| folder.join(name)).find(|file| file.exists());
    found.unwrap_or_else(|| {
        panic!("PostgreSQL's {name} is not to be found: name its folder in WARD_TEST_POSTGRES_BIN")
    })
}

/// A process's state and its parent, as Linux tells them.
fn state(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before them may hold anything, brackets included.
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
    /// Starts a server with further settings (`name=value`). `prepare` may put files into its data folder, which is
    /// its working directory, by [`put`].
    ///
    /// # Panics
    ///
    /// When PostgreSQL is left out: then a test that needs it is made by `postgres_only!`, and does not run.
    pub fn start(settings: &[&str], prepare: impl Fn(&Path)) -> Self {
        assert!(
            !Engine::Postgres.is_left_out(),
            "WARD_TEST_ENGINES leaves PostgreSQL out, and a test starts it all the same: make it by `postgres_only!`"
        );
        // Between finding a port free and listening on it somebody else may take it.
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

    /// Starts a server on a folder that stays when the server ends, made first if it is not there. It waits for no disk
    /// either, unless `settings` say otherwise.
    ///
    /// # Panics
    ///
    /// When no server can be started there.
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

    /// Starts a server on the data that is in a folder. `None`: its port was taken meanwhile.
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
        let program = Guarded::start(folder, end, &programs().join("postgres"), &arguments);
        keeper(port, &program).map(|orders| Self { port, program, orders })
    }

    /// Its first process, of which all others are children.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        let file = std::fs::read_to_string(self.program.folder().join("data/postmaster.pid"));
        let file = file.expect("a server's pid");
        file.lines().next().and_then(|pid| pid.parse().ok()).expect("a server's pid")
    }

    /// The folder that is gone with it, with its data and its log.
    pub fn folder(&self) -> &Path {
        self.program.folder()
    }

    /// Ends it as a power cut would: its first process is killed, and the others find that out.
    pub fn kill(&self) {
        run(unprivileged("kill").args(["-s", "KILL", &self.pid().to_string()]));
    }

    /// Ends all its processes at once, as a power cut would. What it had not flushed is still the operating system's to
    /// write, so this shows what it recovers from its log, and not what its disk forgets.
    ///
    /// # Panics
    ///
    /// When they do not end.
    pub fn cut_power(&self) {
        let pid = std::fs::read_to_string(self.program.folder().join("data/postmaster.pid"))
            .expect("a server's pid");
        let first: u32 = pid.lines().next().and_then(|pid| pid.trim().parse().ok()).expect("a server's pid");
        // The first one is stopped while the others are looked for, so that it starts no more of them.
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

    /// Starts it again on what [`Server::cut_power`] left, and waits until it has recovered.
    ///
    /// # Panics
    ///
    /// When it does not come back.
    pub fn revive(&mut self) {
        self.program.again();
        self.orders = keeper(self.port, &self.program).expect("its port");
    }

    /// Stops all its processes where they stand: its connections stay, the system accepts more for it, and nothing is ever
    /// answered. It is killed with what this returns.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn freeze(&self) -> Frozen {
        let first = self.pid();
        let stop = |pids: &[u32]| {
            let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
            // One of them may have ended by itself meanwhile.
            let _ = unprivileged("kill").args(["-s", "STOP"]).args(&pids).output();
            pids
        };
        // The first process alone, so that it starts no other meanwhile.
        let mut stopped = stop(&[first]);
        stopped.extend(stop(&children(first)));
        Frozen(stopped)
    }

    /// What the server has said so far.
    pub fn log(&self) -> String {
        self.program.log()
    }

    /// Everything that the server keeps of the database with this `pg_database.oid`, byte for byte.
    ///
    /// # Panics
    ///
    /// When its files cannot be read.
    pub fn at_rest(&self, oid: i64) -> Vec<u8> {
        self.sql("CHECKPOINT");
        let folder = self.program.folder().join("data/base").join(oid.to_string());
        let files = std::fs::read_dir(folder).expect("a database's folder");
        files.flat_map(|file| std::fs::read(file.expect("an entry").path()).unwrap_or_default()).collect()
    }

    /// The URL of a database on this server.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://ward@127.0.0.1:{}/{database}", self.port)
    }

    /// One of PostgreSQL's own tools, such as `pg_dump`, pointed at this server.
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
    /// When it fails.
    pub fn sql(&self, sql: impl Into<String>) {
        let (done, answer) = channel();
        let sql = sql.into();
        self.orders.send(Order { sql: sql.clone(), done: Some(done) }).expect("a keeper");
        answer.recv().expect("an answer").unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// An empty database.
    pub fn database(&self) -> Database {
        self.copy("template0")
    }

    /// A copy of the database that `fill` makes, given its URL, when it is first asked for by this name.
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
        // Where nothing waits for the disk, copying files is cheaper than logging their pages.
        self.sql(format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"));
        Database { url: self.url(&name), name, orders: self.orders.clone() }
    }
}

fn initialize(data: &Path) {
    let options = ["-U", "ward", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"];
    run(unprivileged(programs().join("initdb")).arg("-D").arg(data).args(options));
}

/// The processes of a server that were stopped, which are killed when this is dropped: they hear no other signal.
pub struct Frozen(Vec<String>);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = unprivileged("kill").args(["-s", "KILL"]).args(&self.0).output();
    }
}

/// Puts a file for the server's user alone into its data folder.
pub fn put(data: &Path, name: &str, content: &[u8]) {
    file(&data.join(name), content);
}

/// A thread with a connection, which does what is ordered, in order. `None`: the server ended for want of its port.
/// The runtime is the thread's own, because those who order stand in runtimes already.
fn keeper(port: u16, program: &Guarded) -> Option<Sender<Order>> {
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

/// pgbouncer in transaction mode before a [`Server`].
pub struct Pooler {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    program: Guarded,
}

impl Pooler {
    /// Starts one that holds at most so many connections to each of the server's databases.
    pub fn start(server: &Server, connections: u32) -> Self {
        Self::with(server, connections, "")
    }

    /// Starts one that also limits the number of its clients.
    pub fn for_clients(server: &Server, connections: u32, clients: u32) -> Self {
        Self::with(server, connections, &format!("max_client_conn = {clients}\n"))
    }

    fn with(server: &Server, connections: u32, more: &str) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let known = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
        let program = std::env::split_paths(&path).chain(known).map(|folder| folder.join("pgbouncer"));
        let program = program.into_iter().find(|file| file.exists()).unwrap_or_else(|| {
            panic!(
                "PostgreSQL is tested through pgbouncer too, which is not to be found.\n\
                 Install it (Debian, Ubuntu: apt-get install pgbouncer).\n\
                 To leave PostgreSQL out all the same: WARD_TEST_ENGINES=sqlite"
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
        let program = Guarded::start(folder, "TERM", &program, &[&ini.display().to_string()]);
        let started = Instant::now();
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(started.elapsed() < PATIENCE, "pgbouncer does not answer:\n{}", program.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { port, program }
    }

    /// What pgbouncer has said so far.
    pub fn log(&self) -> String {
        self.program.log()
    }
}

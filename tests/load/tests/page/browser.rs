//! Chromium, spoken to over its DevTools protocol through a pipe.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// Of what the browser said, so many messages are told when it says no more, each to so many characters.
const TOLD_MAX: usize = 5;
const MESSAGE_CHARS_MAX: usize = 300;

/// A browser without a window, and one page in it.
pub struct Browser {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    asked: u64,
    events: VecDeque<Value>,
    session: Option<String>,
    /// What it said last.
    said: VecDeque<String>,
    limit: Duration,
    /// A new one begins now. Dropped with this, which ends whoever waits for it.
    deadline: Sender<Duration>,
    /// The deadline has come, and it was ended.
    is_ended: Arc<AtomicBool>,
    _home: tempfile::TempDir,
}

impl Browser {
    /// After `limit` it is ended, whatever it is at, and what is asked then panics with what it said last. `None`: this machine
    /// has none.
    pub fn start(limit: Duration) -> Option<Self> {
        let known = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
        let browser = known.into_iter().find(|path| Path::new(path).exists())?;
        let home = tempfile::tempdir().unwrap();
        // It reads commands from its descriptor 3, and answers on 4.
        let pipes = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;
        let mut process = Command::new("sh")
            .args(["-c", pipes, browser, "--headless", "--no-sandbox", "--disable-gpu"])
            .args(["--remote-debugging-pipe", "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND"])
            .arg(format!("--user-data-dir={}", home.path().join("profile").display()))
            // What it writes beside its profile, such as reports of its crashes, goes with it.
            .env("HOME", home.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_CACHE_HOME")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let (deadline, changed) = mpsc::channel();
        let is_ended = Arc::new(AtomicBool::new(false));
        let (group, ended, mut left) = (process.id(), Arc::clone(&is_ended), limit);
        thread::spawn(move || {
            loop {
                match changed.recv_timeout(left) {
                    Ok(limit) => left = limit,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        ended.store(true, Ordering::SeqCst);
                        return end(group);
                    }
                }
            }
        });
        let (commands, answers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut browser = Self {
            process,
            commands,
            answers: BufReader::new(answers),
            asked: 0,
            events: VecDeque::new(),
            session: None,
            said: VecDeque::new(),
            limit,
            deadline,
            is_ended,
            _home: home,
        };
        let page = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", attach)["sessionId"].as_str().unwrap().to_owned();
        browser.session = Some(session);
        for domain in ["Page", "Network", "Runtime"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.call("Page.setLifecycleEventsEnabled", json!({"enabled": true}));
        browser.call("Emulation.setFocusEmulationEnabled", json!({"enabled": true}));
        Some(browser)
    }

    /// From now on it has so long.
    pub fn limit(&mut self, limit: Duration) {
        self.limit = limit;
        self.deadline.send(limit).unwrap();
    }

    /// Opens a page as a phone does, and waits until it asks for nothing more: what it asked for, itself left out.
    pub fn open(&mut self, page: &Path) -> Vec<String> {
        let url = format!("file://{}", page.display());
        let phone = json!({"width": 500, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", phone);
        self.events.clear();
        let loader = self.call("Page.navigate", json!({"url": url}))["loaderId"].clone();
        let mut asked_for = Vec::new();
        loop {
            let event = self.events.pop_front().unwrap_or_else(|| self.read());
            let about = &event["params"];
            match event["method"].as_str().unwrap_or_default() {
                "Network.requestWillBeSent" if about["request"]["url"] != url.as_str() => {
                    asked_for.push(about["request"]["url"].as_str().unwrap().to_owned());
                }
                "Page.lifecycleEvent" if about["name"] == "networkIdle" && about["loaderId"] == loader => {
                    return asked_for;
                }
                _ => {}
            }
        }
    }

    /// Presses a key, as a hand does.
    pub fn press(&mut self, key: &str, code: u8, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let pressed =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.call("Input.dispatchKeyEvent", pressed);
        }
    }

    /// What an expression gives in the page.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", asked);
        assert!(answer["exceptionDetails"].is_null(), "{answer}");
        answer["result"]["value"].clone()
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.asked += 1;
        let mut command = json!({"id": self.asked, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        // To one that has gone nothing can be written: reading from it tells more.
        let _ = self.commands.write_all(format!("{command}\0").as_bytes());
        loop {
            let mut message = self.read();
            if message["id"] == self.asked {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].take();
            }
            self.events.push_back(message);
        }
    }

    fn read(&mut self) -> Value {
        let mut message = Vec::new();
        self.answers.read_until(0, &mut message).unwrap();
        let is_whole = message.pop() == Some(0);
        let ended = format!("was ended after {:?}", self.limit);
        let why = if self.is_ended.load(Ordering::SeqCst) { &*ended } else { "has gone by itself" };
        assert!(is_whole, "the browser {why}; it last said: {:#?}", self.said);
        let text = String::from_utf8(message).unwrap();
        if self.said.len() == TOLD_MAX {
            self.said.pop_front();
        }
        self.said.push_back(text.chars().take(MESSAGE_CHARS_MAX).collect());
        serde_json::from_str(&text).unwrap()
    }
}

/// With all the processes of its group; those that wait for its crashes are in none, and go by themselves when it has gone.
fn end(group: u32) {
    let _ = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).stderr(Stdio::null()).status();
}

impl Drop for Browser {
    fn drop(&mut self) {
        end(self.process.id());
        let _ = self.process.wait();
    }
}

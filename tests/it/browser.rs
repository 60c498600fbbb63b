//! Debian's chromium, driven over the W3C WebDriver protocol by its own driver.

use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::stack::{Proc, free_port, program, wait_until};

/// A page is there within this, on a busy machine as well.
const LIMIT: Duration = Duration::from_secs(20);

/// The name of an element's reference in the protocol.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub struct Browser {
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
    session: String,
    _driver: Proc,
    _dir: TempDir,
}

impl Browser {
    pub fn start() -> Browser {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::Builder::new().prefix("flipback-browser-").tempdir().unwrap();
        let port = free_port();
        let mut command = Command::new(program("chromedriver"));
        command.arg(format!("--port={port}")).env("HOME", dir.path()).env("TMPDIR", dir.path());
        let driver = Proc::start("chromedriver", dir.path(), &mut command);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
        let base = format!("http://127.0.0.1:{port}");
        let mut browser = Browser { runtime, http, session: String::new(), _driver: driver, _dir: dir };
        wait_until(LIMIT, "chromedriver is ready", || {
            let status = browser.try_call("GET", &format!("{base}/status"), None).ok()?;
            status["ready"].as_bool().filter(|ready| *ready)
        });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {
                "binary": program("chromium"),
                "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions",
                         "--hide-scrollbars", "--force-device-scale-factor=1"],
            },
            "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let made = browser.try_call("POST", &format!("{base}/session"), Some(wanted)).unwrap();
        browser.session = format!("{base}/session/{}", made["sessionId"].as_str().unwrap());
        browser
    }

    fn try_call(&self, method: &str, url: &str, body: Option<Value>) -> Result<Value, String> {
        let request = match method {
            "GET" => self.http.get(url),
            "DELETE" => self.http.delete(url),
            _ => self.http.post(url).json(&body.unwrap_or_else(|| json!({}))),
        };
        self.runtime.block_on(async {
            let answer = request.send().await.map_err(|e| e.to_string())?;
            let good = answer.status().is_success();
            let value: Value = answer.json().await.map_err(|e| e.to_string())?;
            if good { Ok(value["value"].clone()) } else { Err(value["value"].to_string()) }
        })
    }

    fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let done = self.try_call(method, &format!("{}{path}", self.session), Some(body));
        done.unwrap_or_else(|why| panic!("{method} {path}: {why}"))
    }

    pub fn open(&self, url: &str) {
        self.call("POST", "/url", json!({ "url": url }));
    }

    pub fn address(&self) -> String {
        self.call("GET", "/url", Value::Null).as_str().unwrap().to_owned()
    }

    /// The value of an expression in the page.
    pub fn value(&self, expression: &str) -> Value {
        self.call("POST", "/execute/sync", json!({ "script": format!("return ({expression});"), "args": [] }))
    }

    /// The visible text of what a selector finds first; empty where there is nothing.
    pub fn text(&self, selector: &str) -> String {
        let found = self.value(&format!("document.querySelector({selector:?})?.innerText ?? ''"));
        found.as_str().unwrap_or("").to_owned()
    }

    fn find(&self, selector: &str) -> String {
        wait_until(LIMIT, &format!("{selector} on {}", self.address()), || {
            let wanted = json!({ "using": "css selector", "value": selector });
            let found = self.try_call("POST", &format!("{}/element", self.session), Some(wanted)).ok()?;
            found[ELEMENT].as_str().map(str::to_owned)
        })
    }

    pub fn click(&self, selector: &str) {
        // A live page may put a new element in the place of the one that was found.
        wait_until(LIMIT, &format!("a click on {selector}"), || {
            let element = self.find(selector);
            self.try_call("POST", &format!("{}/element/{element}/click", self.session), None).ok()
        });
    }

    pub fn fill(&self, selector: &str, text: &str) {
        let element = self.find(selector);
        self.call("POST", &format!("/element/{element}/value"), json!({ "text": text }));
    }

    /// Keys to whatever has the focus.
    pub fn keys(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })])
            .collect();
        let wanted = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] });
        self.call("POST", "/actions", wanted);
    }

    pub fn wait_for(&self, limit: Duration, what: &str, expression: &str) {
        wait_until(limit, &format!("{what} on {}; main says: {}", self.address(), self.text("main")), || {
            (self.value(expression) == true).then_some(())
        });
    }

    /// A command of the browser's own protocol.
    pub fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.call("POST", "/goog/cdp/execute", json!({ "cmd": command, "params": parameters }))
    }

    /// A screen of this width, light or dark.
    pub fn screen(&self, width: u32, height: u32, dark: bool) {
        let mobile = width < 500;
        let scale = if mobile { 1.5 } else { 1.0 };
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", features);
    }

    /// What is to be seen on the screen, as PNG.
    pub fn picture(&self) -> Vec<u8> {
        let shot = self.devtools("Page.captureScreenshot", json!({ "format": "png" }));
        base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().unwrap()).unwrap()
    }

    /// What the browser complained of since the last time: violations of the policy, scripts that failed.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.call("POST", "/se/log", json!({ "type": "browser" }));
        let severe = log.as_array().unwrap().iter().filter(|entry| entry["level"] == "SEVERE");
        severe.map(|entry| entry["message"].as_str().unwrap_or("").to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let _ = self.try_call("DELETE", &self.session.clone(), None);
        }
    }
}

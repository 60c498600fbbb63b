//! The page in a real browser, against a running daemon and a real Prometheus.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::browser::Browser;
use crate::stack::{Options, Stack, TOKEN, wait_until};

/// Style, script, picture and page together.
const BYTES_MAX: u64 = 100 * 1024;

/// A stack whose page is for those who have the token.
fn with_page(options: &Options) -> (Stack, String) {
    let mut stack = Stack::start(options);
    stack.seed_normal();
    stack.reconfigure("page = \"open\"", "page = \"token\"");
    stack.start_daemon();
    let base = stack.base();
    (stack, base)
}

fn sign_in(browser: &Browser, base: &str) {
    browser.open(base);
    browser.fill("#token", TOKEN);
    browser.fill("#name", "ann");
    browser.click("form.sign-in button");
    browser.wait_for(Duration::from_secs(10), "the services", "document.querySelector('#s-services') !== null");
}

/// What README shows; the others are only looked over.
const IN_README: [&str; 7] =
    ["watch-light", "watch-dark", "watch-phone", "services-light", "services-phone-dark", "explain-light", "history"];

/// Keeps a picture where README wants it: `make pictures` says where.
fn keep(browser: &Browser, name: &str) {
    let variable = if IN_README.contains(&name) { "FLIPBACK_PAGE_TO" } else { "FLIPBACK_ALL_PAGES_TO" };
    let Some(place) = std::env::var_os(variable) else { return };
    fs::write(PathBuf::from(place).join(format!("{name}.png")), browser.picture()).unwrap();
}

/// The screens that README shows.
fn keep_all(browser: &Browser, name: &str) {
    for (screen, width, height, dark) in [
        ("light", 1180, 1000, false),
        ("dark", 1180, 1000, true),
        ("phone", 390, 844, false),
        ("phone-dark", 390, 844, true),
    ] {
        browser.screen(width, height, dark);
        keep(browser, &format!("{name}-{screen}"));
        let wide = browser.value("document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(wide, 0, "{name} on {screen}: nothing hangs over the edge");
    }
    browser.screen(1180, 1000, false);
}

/// The whole length of a page, for whoever looks at it before it is called done.
fn look_at_all(browser: &Browser, name: &str) {
    browser.value("document.querySelectorAll('#s-more details').forEach(d => d.open = true)");
    browser.screen(1180, 3600, false);
    keep(browser, &format!("all-{name}"));
    browser.screen(1180, 1000, false);
}

/// Opened, followed, ordered and looked up: a switch that breaks, from sign-in to the history.
#[test]
fn a_switch_from_sign_in_to_history() {
    let options = Options { soak: "90s", mode: "ask", ..Options::default() };
    let (stack, base) = with_page(&options);
    let browser = Browser::start();
    browser.screen(1180, 1000, false);

    // Nothing is shown to whoever has no token.
    browser.open(&format!("{base}/history"));
    assert!(browser.address().ends_with("/sign-in?to=%2Fhistory"), "{}", browser.address());
    browser.fill("#token", "not the token at all");
    browser.click("form.sign-in button");
    browser.wait_for(
        Duration::from_secs(10),
        "a refusal",
        "document.body.innerText.includes('not a token that is known')",
    );
    sign_in(&browser, &base);
    let services = browser.text("#s-services");
    assert!(services.contains("checkout") && services.contains("ask") && services.contains("good"), "{services}");

    // The list of services has the new watch by itself.
    browser.value("(window.kept = 'the same page')");
    stack.switch_to("green");
    let id = stack.announce();
    browser.wait_for(Duration::from_secs(20), "the open watch", "document.querySelector('#s-open .card') !== null");
    assert_eq!(browser.value("window.kept"), "the same page", "without a reload");
    keep_all(&browser, "services");

    browser.open(&format!("{base}/watches/{id}"));
    browser.value("(window.kept = 'the same page')");
    browser.wait_for(Duration::from_secs(20), "a live stream", "document.querySelector('#live.on') !== null");
    browser.wait_for(Duration::from_secs(40), "charts", "document.querySelectorAll('#s-charts svg').length === 4");
    assert!(browser.text("#s-charts").contains("recorded normal"), "the band has its key");
    assert!(browser.text("#s-state").contains("SOAKING"), "{}", browser.text("#s-state"));
    let ticks = "Number(document.querySelector('#d-readings table')?.rows.length ?? 0)";
    let before = browser.value(ticks).as_u64().unwrap();
    browser.wait_for(Duration::from_secs(20), "more readings", &format!("{ticks} > {before}"));

    // What is open stays open while the page goes on; by keyboard.
    browser.value("document.querySelector('#o-pause summary').focus()");
    browser.keys("\u{e007}");
    browser.wait_for(Duration::from_secs(5), "an open order", "document.querySelector('#o-pause').open");
    let again = browser.value(ticks).as_u64().unwrap();
    browser.wait_for(Duration::from_secs(20), "more readings", &format!("{ticks} > {again}"));
    assert_eq!(browser.value("document.querySelector('#o-pause').open"), true);

    // It breaks, and asks.
    stack.fault("green", "errors=0.2");
    browser.wait_for(
        Duration::from_secs(60),
        "the question",
        "document.querySelector('#s-state .badge').innerText === 'APPROVE?'",
    );
    assert_eq!(browser.value("window.kept"), "the same page", "without a reload");
    assert!(browser.value("document.title").as_str().unwrap().starts_with("APPROVE? · checkout"));
    assert!(browser.text("#news").contains("May flipback go back to blue?"), "a screen reader is told");
    keep_all(&browser, "watch");
    browser.click("#o-approve summary");
    browser.fill("#w-approve", "errors <b>everywhere</b>");
    browser.click("#o-approve button");
    browser.wait_for(Duration::from_secs(10), "what became of it", "document.querySelector('.said') !== null");
    browser.wait_for(
        Duration::from_secs(60),
        "the end",
        "document.querySelector('#s-state .badge').innerText === 'ROLLED BACK'",
    );
    let story = browser.text("#s-story");
    assert!(story.contains("ann (page)") && story.contains("errors <b>everywhere</b>"), "{story}");
    assert_eq!(browser.value("document.querySelectorAll('#s-story b b').length"), 0, "words, no markup");
    assert!(browser.text("#s-plan").contains("done"), "{}", browser.text("#s-plan"));
    assert_eq!(stack.active_slot(), "blue");

    // Why, and what others would have done.
    browser.click("#s-more a");
    let why = browser.text("main");
    for wanted in ["decided: breached", "Flagger 5", "limit: 1.5 ×", "in the place of 1.5×"] {
        assert!(why.contains(wanted), "{wanted}: {why}");
    }
    keep_all(&browser, "explain");
    look_at_all(&browser, "explain");
    browser.open(&format!("{base}/watches/{id}"));
    look_at_all(&browser, "watch");
    browser.open(&format!("{base}/services/checkout"));
    look_at_all(&browser, "service");

    browser.open(&format!("{base}/history"));
    browser.value("document.querySelector('#outcome').value = 'passed'");
    browser.click("form.filter button");
    browser.wait_for(Duration::from_secs(10), "nothing", "document.body.innerText.includes('No switch is like that')");
    browser.open(&format!("{base}/history?outcome=rolled_back_recovered&service=checkout"));
    assert!(browser.text("table").contains(&id), "{}", browser.text("main"));
    keep(&browser, "history");

    // Asking takes them away: asked once. The wrong token's answer is the only one.
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|complaint| complaint.contains("403")), "the console is quiet: {complaints:?}");
    weighs_little(&browser, &base, &id);
    has_names(&browser, &base, &id);
}

/// As the browser measures it.
fn weighs_little(browser: &Browser, base: &str, id: &str) {
    for path in ["/".to_owned(), format!("/watches/{id}")] {
        browser.devtools("Network.clearBrowserCache", serde_json::json!({}));
        browser.open(&format!("{base}{path}"));
        let bytes = browser.value(
            "performance.getEntriesByType('navigation').concat(performance.getEntriesByType('resource'))
                .filter(e => !e.name.includes('events')).reduce((sum, e) => sum + e.transferSize, 0)",
        );
        let ms = browser.value("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd");
        eprintln!("{path}: {bytes} bytes, shown after {ms} ms");
        let bytes = bytes.as_f64().unwrap() as u64;
        assert!((1_000..=BYTES_MAX).contains(&bytes), "{path}: {bytes} bytes");
    }
}

/// What a screen reader is told: every control and picture has a name, headings and landmarks are there.
fn has_names(browser: &Browser, base: &str, id: &str) {
    for path in ["/".to_owned(), format!("/watches/{id}"), "/history".to_owned()] {
        browser.open(&format!("{base}{path}"));
        browser.devtools("Accessibility.enable", serde_json::json!({}));
        let tree = browser.devtools("Accessibility.getFullAXTree", serde_json::json!({}));
        let nodes = tree["nodes"].as_array().unwrap();
        let role = |node: &serde_json::Value| node["role"]["value"].as_str().unwrap_or("").to_owned();
        let shown = nodes.iter().filter(|node| node["ignored"] != true);
        let named = ["button", "link", "textbox", "searchbox", "combobox", "image", "progressbar", "navigation"];
        for node in shown.clone().filter(|node| named.contains(&role(node).as_str())) {
            let name = node["name"]["value"].as_str().unwrap_or("");
            assert!(!name.trim().is_empty(), "{path}: a {} has no name: {node}", role(node));
        }
        for wanted in ["banner", "main", "navigation", "heading", "contentinfo"] {
            assert!(shown.clone().any(|node| role(node) == wanted), "{path}: no {wanted}");
        }
    }
}

/// Everything is there without a script, and nothing is changed by a GET or from another site.
#[test]
fn the_page_is_readable_without_a_script_and_takes_no_orders_from_elsewhere() {
    let (stack, base) = with_page(&Options::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    runtime.block_on(async {
        let get =
            |path: &str, cookie: &str| http.get(format!("{base}{path}")).header("cookie", cookie.to_owned()).send();
        let anonymous = get("/", "").await.unwrap();
        assert_eq!(
            (anonymous.status().as_u16(), &anonymous.headers()["location"]),
            (303, &"/sign-in?to=%2F".parse().unwrap())
        );
        assert_eq!(get("/events", "").await.unwrap().status(), 401);
        let post = |path: &str, cookie: &str, from: &str, body: &'static str| {
            http.post(format!("{base}{path}"))
                .header("cookie", cookie.to_owned())
                .header("origin", from.to_owned())
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body)
                .send()
        };
        let right = concat!("token=", "b3b1a8c2d94e5f60718293a4b5c6d7e8", "&name=ann&to=//evil.example");
        assert_eq!(post("/sign-in", "", "https://evil.example", right).await.unwrap().status(), 403);
        let signed = post("/sign-in", "", &base, right).await.unwrap();
        assert_eq!((signed.status().as_u16(), &signed.headers()["location"]), (303, &"/".parse().unwrap()));
        let cookie = signed.headers()["set-cookie"].to_str().unwrap().to_owned();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
        let cookie = cookie.split(';').next().unwrap().to_owned();

        let home = get("/", &cookie).await.unwrap();
        let policy = home.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(
            (&home.headers()["cache-control"], &home.headers()["x-frame-options"]),
            (&"no-store".parse().unwrap(), &"DENY".parse().unwrap())
        );
        let text = home.text().await.unwrap();
        for wanted in ["checkout", "ARMED", "all&#x2f;disarm\">", "lang=\"en\""] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        assert!(
            !text.contains("style=") && !text.contains("http://") && !text.contains("https://"),
            "nothing from elsewhere"
        );

        // Another site's form with the browser's cookie, a GET, an order without a session.
        assert_eq!(post("/all/disarm", &cookie, "https://evil.example", "").await.unwrap().status(), 403);
        assert_eq!(get("/all/disarm", &cookie).await.unwrap().status(), 405);
        let unsigned = post("/all/disarm", "", &base, "").await.unwrap();
        assert_eq!(unsigned.headers()["location"], "/sign-in?to=%2F");
        assert!(get("/", &cookie).await.unwrap().text().await.unwrap().contains(">ARMED<"));
        // The page itself.
        assert_eq!(post("/all/disarm", &cookie, &base, "why=maintenance").await.unwrap().status(), 303);
        let after = get("/", &cookie).await.unwrap().text().await.unwrap();
        assert!(after.contains(">DISARMED<") && after.contains("role=\"alert\""), "{after}");
        let hostile = get("/watches/%3Cscript%3Ealert(1)%3C%2Fscript%3E", &cookie).await.unwrap();
        assert_eq!(hostile.status(), 404);
        assert!(!hostile.text().await.unwrap().contains("<script>"));
        let wrong = get("/history?outcome=%22%3E%3Cb%3E&since=yesterday", &cookie).await.unwrap().text().await.unwrap();
        assert!(wrong.contains("is no outcome") && !wrong.contains("\"><b>"), "{wrong}");
        assert_eq!(post("/sign-out", &cookie, &base, "").await.unwrap().status(), 303);
        assert_eq!(get("/", &cookie).await.unwrap().status(), 303, "signed out");
    });
    wait_until(Duration::from_secs(10), "the log of it", || {
        let log = stack.daemon.as_ref().unwrap().log();
        log.contains("signed in to the page").then_some(())
    });
}

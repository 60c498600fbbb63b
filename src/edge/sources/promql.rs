//! PromQL as values: selectors are parsed once, bound to services and slots, and printed escaped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use promql_parser::label::MatchOp;
use promql_parser::parser::{Expr, parse};

use crate::domain::service::{Latency, Metrics, SlotSpec};
use crate::domain::signal::Signal;
use crate::domain::switch::{ServiceName, Slot};
use crate::domain::time::{Span, Timestamp};

const SERVICE: &str = "$service";
const SLOT: &str = "$slot";

/// One plain vector selector: a metric and its matchers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    metric: String,
    matchers: Vec<Matcher>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    label: String,
    op: Op,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

impl Selector {
    /// Reads a selector; the error says what is wrong and how to mend it.
    pub fn parse(text: &str) -> Result<Selector, String> {
        let expr = parse(text).map_err(|why| format!("it is not PromQL: {}", one_line(&why)))?;
        let Expr::VectorSelector(found) = expr else {
            return Err(format!(
                "it is {}, but flipback needs the raw series: give the selector alone, like http_requests_total{{service=\"$service\"}}",
                kind_of(&expr)
            ));
        };
        if found.offset.is_some() || found.at.is_some() {
            return Err("it has an offset or @: flipback sets the times itself, leave them away".into());
        }
        if !found.matchers.or_matchers.is_empty() {
            return Err("it has `or` between matchers: write a regex matcher, like code=~\"5..|429\"".into());
        }
        let mut metric = found.name.clone();
        let mut matchers = Vec::new();
        for m in &found.matchers.matchers {
            let op = match &m.op {
                MatchOp::Equal => Op::Equal,
                MatchOp::NotEqual => Op::NotEqual,
                MatchOp::Re(_) => Op::Regex,
                MatchOp::NotRe(_) => Op::NotRegex,
            };
            if m.name == "__name__" {
                if op != Op::Equal {
                    return Err("it matches __name__ by something other than =: name one metric".into());
                }
                metric.get_or_insert_with(|| m.value.clone());
                continue;
            }
            matchers.push(Matcher { label: m.name.clone(), op, value: m.value.clone() });
        }
        let metric = metric.ok_or("it names no metric: begin with one, like http_requests_total{…}")?;
        let selector = Selector { metric, matchers };
        for m in &selector.matchers {
            for word in m.value.split('$').skip(1) {
                let name: String = word.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                // In a regex a `$` with nothing behind it is the end of the text.
                if !name.is_empty() && name != "service" && name != "slot" {
                    return Err(format!(
                        "${name} in the matcher of {} is unknown: there are $service and $slot",
                        m.label
                    ));
                }
            }
        }
        Ok(selector)
    }

    pub fn metric(&self) -> &str {
        &self.metric
    }

    /// The label whose whole value is the variable: one query can then be grouped by it.
    fn whole(&self, variable: &str) -> Option<&str> {
        self.matchers.iter().find(|m| m.op == Op::Equal && m.value == variable).map(|m| m.label.as_str())
    }

    fn mentions(&self, variable: &str) -> bool {
        self.matchers.iter().any(|m| m.value.contains(variable))
    }

    /// Puts the wanted services and slots in the places of the variables. Where a variable stands inside
    /// a value there must be exactly one of its kind.
    pub fn bind(&self, services: &BTreeSet<&str>, slots: &BTreeSet<&str>, spec: &SlotSpec) -> Selector {
        let mut bound = self.clone();
        for m in &mut bound.matchers {
            for (variable, values) in [(SERVICE, services), (SLOT, slots)] {
                if m.op == Op::Equal && m.value == variable {
                    let mut many = values.iter();
                    match (many.next(), many.next()) {
                        (Some(one), None) => m.value = (*one).to_owned(),
                        _ if values.is_empty() => (m.op, m.value) = (Op::Regex, ".+".to_owned()),
                        _ => {
                            let all: Vec<String> = values.iter().map(|v| escape_regex(v)).collect();
                            (m.op, m.value) = (Op::Regex, all.join("|"));
                        }
                    }
                    break;
                }
                if m.value.contains(variable) {
                    let value = values.iter().next().copied().unwrap_or_default();
                    let value = match m.op {
                        Op::Equal | Op::NotEqual => value.to_owned(),
                        Op::Regex | Op::NotRegex => escape_regex(value),
                    };
                    m.value = m.value.replace(variable, &value);
                }
            }
        }
        for (label, value) in &spec.labels {
            bound.matchers.push(Matcher { label: label.clone(), op: Op::Equal, value: value.clone() });
        }
        bound
    }

    /// The same, to be tried on the series of a page that belongs to one slot. What Prometheus itself adds to series
    /// (job, instance, a target's labels) is not on their page; what tells services and slots apart may not be.
    pub fn matching(
        &self,
        services: &BTreeSet<&str>,
        slots: &BTreeSet<&str>,
        spec: &SlotSpec,
    ) -> Result<Matching, String> {
        let own = self.matchers.len();
        let bound = self.bind(services, slots, spec);
        let mut tests = Vec::new();
        for (i, m) in bound.matchers.iter().enumerate() {
            let places = self.matchers.get(i).is_some_and(|m| m.value.contains(SERVICE) || m.value.contains(SLOT));
            let regex = match m.op {
                Op::Equal | Op::NotEqual => None,
                Op::Regex | Op::NotRegex => {
                    let anchored = format!("^(?s:{})$", m.value);
                    Some(regex::Regex::new(&anchored).map_err(|_| format!("{:?} is no pattern", m.value))?)
                }
            };
            let targets = i >= own || places || matches!(m.label.as_str(), "job" | "instance");
            tests.push(Test { matcher: m.clone(), regex, targets });
        }
        Ok(Matching { metric: bound.metric, tests })
    }

    /// The same series, of these instances only.
    pub fn of_instances(&self, instances: &BTreeSet<&str>) -> Selector {
        let mut narrowed = self.clone();
        let all: Vec<String> = instances.iter().map(|i| escape_regex(i)).collect();
        narrowed.matchers.push(Matcher { label: "instance".into(), op: Op::Regex, value: all.join("|") });
        narrowed
    }
}

/// A selector that is tried on labels.
#[derive(Debug, Clone)]
pub struct Matching {
    metric: String,
    tests: Vec<Test>,
}

#[derive(Debug, Clone)]
struct Test {
    matcher: Matcher,
    regex: Option<regex::Regex>,
    /// About a label that a page need not have.
    targets: bool,
}

impl Matching {
    pub fn metric(&self) -> &str {
        &self.metric
    }

    pub fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        self.tests.iter().all(|test| {
            let found = labels.get(&test.matcher.label);
            if test.targets && found.is_none() {
                return true;
            }
            // As in Prometheus: a label that is not there is an empty one.
            let found = found.map_or("", String::as_str);
            let like = test.regex.as_ref().map_or(found == test.matcher.value, |regex| regex.is_match(found));
            match test.matcher.op {
                Op::Equal | Op::Regex => like,
                Op::NotEqual | Op::NotRegex => !like,
            }
        })
    }
}

/// The labels of a series as a page writes it: `name{a="b"}`.
pub fn labels_of(series: &str) -> Result<BTreeMap<String, String>, String> {
    let expr = parse(series).map_err(|why| one_line(&why))?;
    let Expr::VectorSelector(found) = expr else { return Err("its labels cannot be read".into()) };
    let plain = found.matchers.or_matchers.is_empty() && found.matchers.matchers.iter().all(|m| m.op == MatchOp::Equal);
    if !plain {
        return Err("its labels cannot be read".into());
    }
    Ok(found.matchers.matchers.into_iter().map(|m| (m.name, m.value)).filter(|(name, _)| name != "__name__").collect())
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name that only quotes can hold (Prometheus 3 takes any) stays within them.
        let plain = is_plain(&self.metric);
        if plain {
            write!(f, "{}{{", self.metric)?;
        } else {
            write!(f, "{{__name__={}", quoted(&self.metric))?;
        }
        for (i, m) in self.matchers.iter().enumerate() {
            let op = match m.op {
                Op::Equal => "=",
                Op::NotEqual => "!=",
                Op::Regex => "=~",
                Op::NotRegex => "!~",
            };
            let comma = if i == 0 && plain { "" } else { "," };
            write!(f, "{comma}{}{op}{}", m.label, quoted(&m.value))?;
        }
        f.write_str("}")
    }
}

/// A metric's name as it may stand without quotes.
fn is_plain(metric: &str) -> bool {
    metric.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':')
        && metric.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// A PromQL string: nothing in the value can end it.
pub fn quoted(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// RE2 text that matches the value and nothing else.
pub fn escape_regex(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// An instant in query text, with milliseconds.
pub fn at(t: Timestamp) -> String {
    let ms = t.as_millis();
    format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000))
}

/// A template's selectors, parsed, and how they tell services and slots apart.
#[derive(Debug, Clone)]
pub struct Template {
    pub requests: Selector,
    pub errors: Option<Selector>,
    /// Classic buckets, or ...
    pub latency: Option<Selector>,
    /// ... a native histogram.
    pub native: Option<Selector>,
}

impl Template {
    pub fn parse(metrics: &Metrics) -> Result<Template, String> {
        let named = |what: &str, text: &str| {
            Selector::parse(text).map_err(|why| format!("the {what} selector of {}: {why}", metrics.name))
        };
        Ok(Template {
            requests: named("requests", &metrics.requests)?,
            errors: metrics.errors.as_deref().map(|t| named("errors", t)).transpose()?,
            latency: match &metrics.latency {
                Some(Latency::Classic(text)) => Some(named("latency", text)?),
                Some(Latency::Native(_)) | None => None,
            },
            native: match &metrics.latency {
                Some(Latency::Native(text)) => Some(named("latency", text)?),
                Some(Latency::Classic(_)) | None => None,
            },
        })
    }

    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        let more = [self.errors.as_ref(), self.latency.as_ref(), self.native.as_ref()];
        std::iter::once(&self.requests).chain(more.into_iter().flatten())
    }

    /// Whether one query can serve several services: every selector has the whole-value matcher.
    pub fn groups_services(&self) -> bool {
        self.selectors().all(|s| s.whole(SERVICE).is_some())
    }

    /// The label that holds the slot's name.
    pub fn slot_label(&self) -> Option<String> {
        self.requests.whole(SLOT).map(str::to_owned)
    }

    pub fn groups_slots(&self) -> bool {
        self.selectors().all(|s| s.whole(SLOT).is_some())
    }
}

/// The labels by which a part's answers are told apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupLabels {
    pub service: Option<String>,
    pub slot: Option<String>,
}

impl GroupLabels {
    pub fn of(selector: &Selector, services: bool, slots: bool) -> GroupLabels {
        GroupLabels {
            service: selector.whole(SERVICE).filter(|_| services).map(str::to_owned),
            slot: selector.whole(SLOT).filter(|_| slots).map(str::to_owned),
        }
    }

    pub fn list(&self, more: &[&str]) -> String {
        let mut labels: Vec<&str> = self.service.iter().chain(&self.slot).map(String::as_str).collect();
        labels.extend(more);
        labels.join(", ")
    }
}

/// For the configuration: one plain selector, or what is wrong with it.
pub fn check_selector(text: &str) -> Result<(), String> {
    Selector::parse(text).map(|_| ())
}

/// For the configuration: any PromQL, for custom signals.
pub fn check_query(text: &str) -> Result<(), String> {
    parse(text).map(|_| ()).map_err(|why| format!("it is not PromQL: {}", one_line(&why)))
}

/// The query that a person can paste to see a signal of a slot; for reading, not for judging.
pub fn shown_query(
    metrics: &Metrics,
    service: &ServiceName,
    slot: &Slot,
    spec: &SlotSpec,
    signal: &Signal,
    range: Span,
) -> Option<String> {
    let template = Template::parse(metrics).ok()?;
    let (services, slots) = (BTreeSet::from([service.as_str()]), BTreeSet::from([slot.as_str()]));
    let bound = |s: &Selector| s.bind(&services, &slots, spec);
    match signal {
        Signal::ErrorRate => {
            let errors = bound(template.errors.as_ref()?);
            let requests = bound(&template.requests);
            Some(format!("sum(rate({errors}[{range}])) / sum(rate({requests}[{range}]))"))
        }
        Signal::Latency(q) if template.native.is_some() => {
            let native = bound(template.native.as_ref()?);
            Some(format!("histogram_quantile({}, sum(rate({native}[{range}])))", q.q()))
        }
        Signal::Latency(q) => {
            let latency = bound(template.latency.as_ref()?);
            Some(format!("histogram_quantile({}, sum by (le) (rate({latency}[{range}])))", q.q()))
        }
        Signal::Traffic => Some(format!("sum(rate({}[{range}]))", bound(&template.requests))),
        Signal::Custom(name) => {
            metrics.custom.iter().find(|(n, _)| n == name).map(|(_, query)| bind_query(query, service, slot))
        }
        Signal::Alive => None,
    }
}

/// Variables of a custom query. The names' alphabet holds nothing that could end a string or a selector.
pub fn bind_query(query: &str, service: &ServiceName, slot: &Slot) -> String {
    query.replace(SERVICE, service.as_str()).replace(SLOT, slot.as_str())
}

/// Prometheus's graph page for a query.
pub fn graph_link(external_url: &str, query: &str, at: Timestamp, range: Span) -> String {
    let mut encoded = String::new();
    for byte in query.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    let end = at.to_string();
    let end = end.trim_end_matches('Z').replace('T', "%20").replace(':', "%3A");
    format!(
        "{}/graph?g0.expr={encoded}&g0.tab=0&g0.range_input={range}&g0.end_input={end}",
        external_url.trim_end_matches('/')
    )
}

fn kind_of(expr: &Expr) -> &'static str {
    match expr {
        Expr::Aggregate(_) => "an aggregation",
        Expr::Binary(_) => "a calculation",
        Expr::Call(_) => "a function call",
        Expr::MatrixSelector(_) => "a range selector",
        Expr::Subquery(_) => "a subquery",
        Expr::Paren(_) => "an expression in brackets",
        Expr::Unary(_) => "a negation",
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => "a literal",
        Expr::VectorSelector(_) | Expr::Extension(_) => "an expression",
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect()
}

impl Selector {
    pub fn mentions_slot(&self) -> bool {
        self.mentions(SLOT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<'a>(values: &[&'a str]) -> BTreeSet<&'a str> {
        values.iter().copied().collect()
    }

    #[test]
    fn variables_become_matchers() {
        let s = Selector::parse(r#"http_requests_total{service="$service",env="$slot",code=~"5.."}"#).unwrap();
        let none = SlotSpec::default();
        assert_eq!(
            s.bind(&set(&["checkout"]), &set(&["blue", "green"]), &none).to_string(),
            r#"http_requests_total{service="checkout",env=~"blue|green",code=~"5.."}"#
        );
        let inside = Selector::parse(r#"r{job="app-$slot",pod=~"$slot-.*"}"#).unwrap();
        assert_eq!(
            inside.bind(&set(&["x"]), &set(&["v1.2"]), &none).to_string(),
            r#"r{job="app-v1.2",pod=~"v1\\.2-.*"}"#
        );
    }

    /// Found by the fuzzer: such a name went into queries as it was.
    #[test]
    fn a_name_that_needs_quotes_keeps_them() {
        let s = Selector::parse(r#"{__name__="up or vector(1)",env="blue"}"#).unwrap();
        assert_eq!(s.to_string(), r#"{__name__="up or vector(1)",env="blue"}"#);
        assert_eq!(Selector::parse(&s.to_string()).unwrap().to_string(), s.to_string());
    }

    #[test]
    fn what_is_no_plain_selector_is_refused_with_the_mend() {
        for (text, why) in [
            ("rate(x[5m])", "function call"),
            ("sum(x)", "aggregation"),
            ("x[5m]", "range selector"),
            ("x offset 5m", "offset"),
            ("x @ 3", "@"),
            (r#"{job="a"}"#, "names no metric"),
            (r#"{__name__=~"a.*"}"#, "name one metric"),
            ("x{", "not PromQL"),
            ("", "not PromQL"),
            (r#"x{a="$version"}"#, "$version"),
            ("x + y", "calculation"),
        ] {
            let err = Selector::parse(text).unwrap_err();
            assert!(err.contains(why), "{text}: {err}");
        }
        assert!(Selector::parse(r#"x{a=~"5..$"}"#).is_ok(), "a regex may end with $");
    }

    #[test]
    fn a_graph_link_holds_the_whole_query() {
        let link = graph_link("http://p:9090/", r#"sum(x{a="b"})"#, Timestamp::from_millis(0), Span::from_mins(5));
        assert_eq!(
            link,
            "http://p:9090/graph?g0.expr=sum%28x%7Ba%3D%22b%22%7D%29&g0.tab=0&g0.range_input=5m&g0.end_input=1970-01-01%2000%3A00%3A00"
        );
    }

    proptest::proptest! {
        /// Whatever a label's value holds, the printed selector parses back to that value.
        #[test]
        fn no_value_escapes_its_string(value in "\\PC*|[\\x00-\\x7f]*") {
            let s = Selector { metric: "x".into(), matchers: vec![Matcher { label: "a".into(), op: Op::Equal, value: value.clone() }] };
            let Expr::VectorSelector(back) = parse(&s.to_string()).unwrap() else { panic!("{s}") };
            proptest::prop_assert_eq!(&back.matchers.matchers[0].value, &value);
        }

        #[test]
        fn an_escaped_regex_matches_only_itself(a in "[ -~]{1,12}", b in "[ -~]{1,12}") {
            let s = Selector { metric: "x".into(), matchers: vec![Matcher { label: "l".into(), op: Op::Regex, value: escape_regex(&a) }] };
            let Expr::VectorSelector(back) = parse(&s.to_string()).unwrap() else { panic!("{s}") };
            proptest::prop_assert!(back.matchers.matchers[0].is_match(&a));
            proptest::prop_assert_eq!(back.matchers.matchers[0].is_match(&b), a == b);
        }
    }
}

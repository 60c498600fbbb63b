//! Our own decoder of Prometheus's answers: warnings are seen, NaN goes no further, and a native
//! histogram among floats is named rather than losing the whole answer.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::native::{self, Histogram};
use crate::domain::signal::{FailureKind, ReadFailure};

pub type Labels = BTreeMap<String, String>;

/// One series' value at an instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub labels: Labels,
    pub value: f64,
}

/// One series' samples: (milliseconds, value).
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub labels: Labels,
    pub points: Vec<(i64, f64)>,
}

#[derive(Deserialize)]
struct Envelope<R> {
    status: String,
    data: Option<Data<R>>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(rename = "errorType", default)]
    error_type: String,
    #[serde(default)]
    error: String,
    /// VictoriaMetrics: some of its stores did not answer.
    #[serde(rename = "isPartial", default)]
    partial: bool,
}

#[derive(Deserialize)]
struct Data<R> {
    #[serde(rename = "resultType")]
    result_type: String,
    result: R,
}

#[derive(Deserialize)]
struct RawSample {
    #[serde(default)]
    metric: Labels,
    value: Option<(f64, String)>,
    histogram: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RawSeries {
    #[serde(default)]
    metric: Labels,
    #[serde(default)]
    values: Vec<(f64, String)>,
    histograms: Option<IgnoredAny>,
}

fn unusable(detail: impl Into<String>) -> ReadFailure {
    ReadFailure { kind: FailureKind::Unusable, detail: detail.into() }
}

fn open<R: for<'de> Deserialize<'de>>(body: &[u8], wanted: &str) -> Result<R, ReadFailure> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "resultType")]
        result_type: String,
    }
    // The type is looked at first: an answer of another type would fail to decode without saying so.
    if let Ok(Envelope { data: Some(data), .. }) = serde_json::from_slice::<Envelope<IgnoredAny>>(body)
        && data.result_type != wanted
    {
        return Err(unusable(format!("the answer is a {}, not a {wanted}", data.result_type)));
    }
    let _ = |k: Kind| k.result_type;
    let envelope: Envelope<R> =
        serde_json::from_slice(body).map_err(|error| unusable(format!("the answer cannot be decoded: {error}")))?;
    if envelope.status != "success" {
        return Err(unusable(format!("{}: {}", envelope.error_type, envelope.error)));
    }
    if let Some(warning) = envelope.warnings.first() {
        return Err(unusable(format!("the answer has warnings: {warning}")));
    }
    if envelope.partial {
        return Err(unusable("the answer is partial: a part of the store did not answer"));
    }
    envelope.data.map(|data| data.result).ok_or_else(|| unusable("the answer has no data"))
}

fn number(text: &str) -> Result<f64, ReadFailure> {
    let value: f64 = match text {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        text => text.parse().map_err(|_| unusable(format!("{text:?} is not a number")))?,
    };
    if value.is_finite() { Ok(value) } else { Err(unusable(format!("a value is {text}"))) }
}

/// An instant vector.
pub fn vector(body: &[u8]) -> Result<Vec<Sample>, ReadFailure> {
    let raw: Vec<RawSample> = open(body, "vector")?;
    raw.into_iter()
        .map(|sample| {
            if sample.histogram.is_some() {
                return Err(unusable("a series is a native histogram; it is named as latency = { native = '...' }"));
            }
            let (_, text) = sample.value.ok_or_else(|| unusable("a sample has no value"))?;
            Ok(Sample { labels: sample.metric, value: number(&text)? })
        })
        .collect()
}

/// A range vector of raw samples (`x[5m]`). VictoriaMetrics shows its marks of staleness among them, as NaN: they are
/// no samples.
pub fn raw_samples(body: &[u8]) -> Result<Vec<Series>, ReadFailure> {
    range_vector(body, |text| text == "NaN")
}

/// A range vector.
pub fn matrix(body: &[u8]) -> Result<Vec<Series>, ReadFailure> {
    range_vector(body, |_| false)
}

fn range_vector(body: &[u8], left_out: impl Fn(&str) -> bool) -> Result<Vec<Series>, ReadFailure> {
    let raw: Vec<RawSeries> = open(body, "matrix")?;
    raw.into_iter()
        .map(|series| {
            if series.histograms.is_some() {
                return Err(unusable("a series is a native histogram; it is named as latency = { native = '...' }"));
            }
            let points = series
                .values
                .into_iter()
                .filter(|(_, text)| !left_out(text))
                .map(|(at, text)| Ok(((at * 1000.0).round() as i64, number(&text)?)))
                .collect::<Result<_, ReadFailure>>()?;
            Ok(Series { labels: series.metric, points })
        })
        .collect()
}

#[derive(Deserialize)]
struct RawHistograms {
    #[serde(default)]
    metric: Labels,
    histogram: Option<(f64, native::Raw)>,
    #[serde(default)]
    histograms: Vec<(f64, native::Raw)>,
}

impl RawHistograms {
    fn read(self) -> Result<HistogramSeries, ReadFailure> {
        let all = self.histograms.into_iter().chain(self.histogram);
        let points: Vec<(i64, Histogram)> = all
            .map(|(at, raw)| Ok(((at * 1000.0).round() as i64, Histogram::read(&raw).map_err(unusable)?)))
            .collect::<Result<_, ReadFailure>>()?;
        if points.is_empty() {
            return Err(unusable("a series is no native histogram: name classic buckets as latency = '..._bucket'"));
        }
        Ok(HistogramSeries { labels: self.metric, points })
    }
}

/// One series' native histograms: (milliseconds, histogram).
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramSeries {
    pub labels: Labels,
    pub points: Vec<(i64, Histogram)>,
}

/// An instant vector (one point each) or a range vector of native histograms.
pub fn histograms(body: &[u8], wanted: &str) -> Result<Vec<HistogramSeries>, ReadFailure> {
    let raw: Vec<RawHistograms> = open(body, wanted)?;
    raw.into_iter().map(RawHistograms::read).collect()
}

/// How many samples a query touched, where the server says so.
pub fn samples_touched(body: &[u8]) -> Option<u64> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    answer.pointer("/data/stats/samples/totalQueryableSamples")?.as_u64()
}

/// A scalar, as `time()` answers.
pub fn scalar(body: &[u8]) -> Result<f64, ReadFailure> {
    let (_, text): (f64, String) = open(body, "scalar")?;
    number(&text)
}

/// What Prometheus says about a query that it refuses.
pub fn refusal(body: &[u8]) -> Option<String> {
    let envelope: Envelope<IgnoredAny> = serde_json::from_slice(body).ok()?;
    (!envelope.error.is_empty()).then(|| format!("{}: {}", envelope.error_type, envelope.error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_answers_come_through() {
        let body = br#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1.5,"42"]}]}}"#;
        assert_eq!(vector(body).unwrap()[0].value, 42.0);
        let body = br#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1.001,"1"],[2.002,"2"]]}]}}"#;
        assert_eq!(matrix(body).unwrap()[0].points, [(1001, 1.0), (2002, 2.0)]);
        assert_eq!(
            scalar(br#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"1.5"]}}"#).unwrap(),
            1.5
        );
    }

    #[test]
    fn what_is_not_data_is_said() {
        for (body, why) in [
            (
                r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"NaN"]}]}}"#,
                "NaN",
            ),
            (
                r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"+Inf"]}]}}"#,
                "+Inf",
            ),
            (
                r#"{"status":"success","warnings":["one store is away"],"data":{"resultType":"vector","result":[]}}"#,
                "one store is away",
            ),
            (r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#, "matrix"),
            (r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#, "parse error"),
            (
                r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{}]}]}}"#,
                "native histogram",
            ),
            (r#"{"status":"success","data":{"resultType":"vector","result":[{"met"#, "decoded"),
            (r#"{"status":"success"}"#, "no data"),
            ("", "decoded"),
            ("<html>", "decoded"),
        ] {
            let err = vector(body.as_bytes()).unwrap_err();
            assert!(err.kind == FailureKind::Unusable && err.detail.contains(why), "{body}: {err}");
        }
    }
}

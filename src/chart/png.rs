//! SVG to PNG, with a font of our own (a part of DejaVu Sans) and few colours: three pictures fit into a mail.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use super::{HEIGHT, WIDTH};

/// For screens with two pixels to the CSS pixel.
const ZOOM: u32 = 2;

/// An indexed picture has so many colours at most.
const COLOURS: usize = 256;

static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(include_bytes!("DejaVuSans-subset.ttf").to_vec());
    fonts.set_sans_serif_family("DejaVu Sans");
    Arc::new(fonts)
});

pub fn render(svg: &str) -> Option<Vec<u8>> {
    let options = Options { fontdb: FONTS.clone(), ..Options::default() };
    let tree = Tree::from_str(svg, &options).ok()?;
    let mut pixmap = Pixmap::new(WIDTH * ZOOM, HEIGHT * ZOOM)?;
    resvg::render(&tree, Transform::from_scale(ZOOM as f32, ZOOM as f32), &mut pixmap.as_mut());
    encode(&pixmap)
}

fn encode(pixmap: &Pixmap) -> Option<Vec<u8>> {
    // Smoothed edges bring thousands of shades; the fewer bits of each are kept, the fewer colours there are.
    let (palette, pixels) = (3..=5).rev().find_map(|bits| indexed(pixmap, bits))?;
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, pixmap.width(), pixmap.height());
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    encoder.set_palette(palette.iter().flat_map(|c| c[..3].to_vec()).collect::<Vec<u8>>());
    encoder.set_trns(palette.iter().map(|c| c[3]).collect::<Vec<u8>>());
    let mut writer = encoder.write_header().ok()?;
    writer.write_image_data(&pixels).ok()?;
    writer.finish().ok()?;
    Some(out)
}

type Colour = [u8; 4];

/// Colours with so many bits each, or `None` where they are too many.
fn indexed(pixmap: &Pixmap, bits: u32) -> Option<(Vec<Colour>, Vec<u8>)> {
    let mut known: HashMap<Colour, u8> = HashMap::new();
    let mut palette: Vec<Colour> = Vec::new();
    let mut pixels = Vec::with_capacity(pixmap.pixels().len());
    // White stays white.
    let rounded = |v: u8| {
        let kept = u32::from(v) >> (8 - bits);
        (kept * 255 / ((1 << bits) - 1)) as u8
    };
    for pixel in pixmap.pixels() {
        let c = pixel.demultiply();
        let colour = [c.red(), c.green(), c.blue(), c.alpha()].map(rounded);
        let index = match known.get(&colour) {
            Some(index) => *index,
            None if palette.len() == COLOURS => return None,
            None => {
                let index = palette.len() as u8;
                palette.push(colour);
                known.insert(colour, index);
                index
            }
        };
        pixels.push(index);
    }
    Some((palette, pixels))
}

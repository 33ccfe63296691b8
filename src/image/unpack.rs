use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;

use super::digest::Hashed;
use super::layer::{Budget, Limits, lay};
use super::layout::{LayerBlob, Layout};
use super::record::Config;
use super::tree::Tree;
use super::{Error, Record, Result};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const MIB: u64 = 1 << 20;

/// Unpacks the layout's image into an empty directory. What is left there after an error is to be thrown away.
pub(super) fn unpack(layout: &Layout, root: OwnedFd, limits: Limits, say: &mut dyn FnMut(&str)) -> Result<Record> {
    let image = layout.image()?;
    let mut record = Record {
        digest: image.digest.to_string(),
        created: image.configuration.created().clone(),
        config: Config::from_oci(image.configuration.config().as_ref())?,
        layers: image.layers.len(),
        entries: 0,
        bytes: 0,
        privileged: 0,
        privileged_names: Vec::new(),
        devices_left_out: 0,
        attributes_dropped: 0,
    };
    let budget = Budget::new(limits);
    let mut tree = Tree::new(root);
    for (number, layer) in image.layers.iter().enumerate() {
        let (number, all, size) = (number + 1, image.layers.len(), layer.size.div_ceil(MIB));
        say(&format!("layer {number} of {all}: {} ({size} MiB packed)", layer.blob.short()));
        one_layer(layout, layer, &mut tree, &budget, &mut record)?;
    }
    tree.finish()?;
    record.entries = budget.entries();
    Ok(record)
}

/// Both digests are checked while the bytes pass. A wrong one shows only at the end: until then the files lie in a
/// directory that nothing but this import knows.
fn one_layer(layout: &Layout, layer: &LayerBlob, tree: &mut Tree, budget: &Budget, record: &mut Record) -> Result<()> {
    let broken = |source| Error::Layer { layer: layer.blob, source };
    let mut packed = BufReader::with_capacity(128 << 10, Hashed::new(layout.reader(layer.blob)?));
    {
        let inflated = inflate(&mut packed).map_err(broken)?;
        let mut plain = Hashed::new(budget.limit(inflated));
        let laid = lay(&mut plain, tree, budget, record);
        let verified = laid.and_then(|()| plain.verify(layer.plain));
        if let Some(limit) = budget.exceeded() {
            return Err(limit);
        }
        // A blob that is not what the manifest says explains every other complaint about it.
        if let Err(complaint) = verified {
            packed.into_inner().verify(layer.blob)?;
            return Err(complaint);
        }
    }
    packed.into_inner().verify(layer.blob)
}

/// By its first bytes: media types are many, and some exporters get them wrong.
fn inflate<'r>(packed: &'r mut impl BufRead) -> std::io::Result<Box<dyn Read + 'r>> {
    let magic = packed.fill_buf()?;
    Ok(if magic.starts_with(GZIP) {
        Box::new(flate2::bufread::MultiGzDecoder::new(packed))
    } else if magic.starts_with(ZSTD) {
        Box::new(zstd::Decoder::with_buffer(packed)?)
    } else {
        Box::new(packed)
    })
}

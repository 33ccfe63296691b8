//! Images as an attacker would make them. Every import here runs in a directory beside one that must stay as it was.

mod yard;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use proptest::prelude::*;
use tar::{EntryType, Header};

use self::yard::{Layer, Packed, Yard, base, names};
use super::{Error, Name, Removed};

#[test]
fn an_honest_image_arrives_as_it_was() {
    let yard = Yard::new();
    for packed in [Packed::Tar, Packed::Gzip, Packed::Zstd] {
        let layer = Layer::new()
            .directory("./")
            .raw(b"./etc/", EntryType::Directory, 0o500, b"", b"")
            .file("./etc/motd", b"hello")
            .symlink("./link", "/etc/motd")
            .hardlink("./second", "./etc/motd")
            .raw(b"./tmp/", EntryType::Directory, 0o1777, b"", b"")
            .end();
        yard.layout(&[layer], packed);
        let record = yard.bring().unwrap();
        assert_eq!((record.entries, record.bytes, record.layers, record.privileged), (6, 5, 1, 0));
        assert_eq!(record.config.command, ["/bin/sh"]);
    }
    let root = yard.root();
    assert_eq!(fs::read(root.join("second")).unwrap(), b"hello");
    assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("/etc/motd"));
    assert_eq!(fs::metadata(root.join("etc")).unwrap().mode() & 0o7777, 0o500);
    assert_eq!(fs::metadata(root.join("etc")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(fs::metadata(root.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(fs::metadata(root.join("second")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(yard.path("state/images")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_path_that_climbs_is_refused() {
    for name in ["../victim/new", "a/../../../../victim/new", "..", "/../../../victim/new"] {
        assert!(Yard::new().refuses(&[Layer::new().file(name, b"x").end()]).contains("leaves the image"));
    }
}

#[test]
fn an_absolute_path_lands_inside() {
    let yard = Yard::new();
    let outside = yard.path("victim/new").display().to_string();
    yard.import(&[Layer::new().file(&outside, b"x").end()]).unwrap();
    assert_eq!(fs::read(yard.root().join(outside.trim_start_matches('/'))).unwrap(), b"x");
}

#[test]
fn nothing_is_written_through_a_symlink() {
    let yard = Yard::new();
    let victim = yard.path("victim").display().to_string();
    for target in [victim.as_str(), "../../../../victim", "."] {
        let told = yard.refuses(&[Layer::new().symlink("way", target).file("way/file", b"owned").end()]);
        assert!(told.contains("symbolic link"), "{told}");
        // From a lower layer it is no better.
        yard.refuses(&[Layer::new().symlink("way", target).end(), Layer::new().file("way/file", b"owned").end()]);
        yard.refuses(&[Layer::new().symlink("way", target).hardlink("x", "way/file").end()]);
        yard.refuses(&[Layer::new().symlink("way", target).end(), Layer::new().file("way/.wh.file", b"").end()]);
        yard.refuses(&[Layer::new().symlink("way", target).end(), Layer::new().file("way/.wh..wh..opq", b"").end()]);
        yard.refuses(&[Layer::new().symlink("way", target).directory("way/new").end()]);
    }
}

#[test]
fn a_file_where_a_symlink_was_replaces_the_link_itself() {
    let yard = Yard::new();
    let target = yard.path("victim/file").display().to_string();
    let layers = [Layer::new().symlink("way", &target).symlink("dir", "/").end()];
    let over = Layer::new().file("way", b"mine").directory("dir").file("dir/file", b"mine").end();
    yard.import(&[layers[0].clone(), over]).unwrap();
    assert!(fs::symlink_metadata(yard.root().join("way")).unwrap().is_file());
    assert_eq!(fs::read(yard.root().join("dir/file")).unwrap(), b"mine");
}

#[test]
fn a_hard_link_outward_is_refused() {
    let yard = Yard::new();
    let outside = yard.path("victim/file").display().to_string();
    assert!(yard.refuses(&[Layer::new().hardlink("x", &outside).end()]).contains("does not have"));
    assert!(yard.refuses(&[Layer::new().hardlink("x", "../victim/file").end()]).contains("leaves the image"));
    assert!(yard.refuses(&[Layer::new().directory("d").hardlink("x", "d").end()]).contains("no file"));
    assert!(yard.refuses(&[Layer::new().file("x", b"").hardlink("x", "x").end()]).contains("itself"));
}

#[test]
fn a_hard_link_to_a_symlink_is_the_link_again() {
    let yard = Yard::new();
    let target = yard.path("victim/file").display().to_string();
    // Written to under its second name, the link gives way to the file.
    let layer = Layer::new().symlink("one", &target).hardlink("two", "one").hardlink("three", "one");
    yard.import(&[layer.file("two", b"owned").end()]).unwrap();
    assert_eq!(fs::read_link(yard.root().join("three")).unwrap(), Path::new(&target));
    assert!(fs::symlink_metadata(yard.root().join("two")).unwrap().is_file());
}

#[test]
fn a_file_is_written_anew_and_not_through_its_other_name() {
    let yard = Yard::new();
    let layers = [Layer::new().file("a", b"old").hardlink("b", "a").end(), Layer::new().file("b", b"new").end()];
    yard.import(&layers).unwrap();
    assert_eq!(fs::read(yard.root().join("a")).unwrap(), b"old");
}

#[test]
fn devices_and_pipes_are_refused_but_left_out_of_dev() {
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo] {
        let yard = Yard::new();
        let told = yard.refuses(&[Layer::new().raw(b"etc/sda", kind, 0o666, b"", b"").end()]);
        assert!(told.contains("`etc/sda`"), "{told}");
        let record = yard.import(&[Layer::new().directory("dev").raw(b"dev/sda", kind, 0o666, b"", b"").end()]);
        assert_eq!(record.unwrap().devices_left_out, 1);
        assert!(names(&yard.root().join("dev")).is_empty());
    }
    assert!(Yard::new().refuses(&[Layer::new().raw(b"x", EntryType::new(b'Q'), 0, b"", b"").end()]).contains("kind"));
}

#[test]
fn set_id_bits_are_taken_away_and_told() {
    let yard = Yard::new();
    let layer = Layer::new()
        .raw(b"su", EntryType::Regular, 0o4755, b"", b"#!")
        .raw(b"wall", EntryType::Regular, 0o2755, b"", b"#!")
        .raw(b"mail", EntryType::Directory, 0o2775, b"", b"")
        .raw(b"sticky", EntryType::Regular, 0o1644, b"", b"");
    let record = yard.import(&[layer.hardlink("su2", "su").end()]).unwrap();
    assert_eq!((record.privileged, record.privileged_names), (3, vec!["su".into(), "wall".into(), "mail".into()]));
    for name in ["su", "su2", "wall", "mail", "sticky"] {
        assert_eq!(fs::metadata(yard.root().join(name)).unwrap().permissions().mode() & 0o7000, 0, "{name}");
    }
}

#[test]
fn an_owner_of_another_jails_range_is_refused() {
    let mut layer = Layer::new().file("x", b"").end();
    let mut header = Header::from_byte_slice(&layer[..512]).clone();
    header.set_uid(70000);
    header.set_cksum();
    layer[..512].copy_from_slice(header.as_bytes());
    assert!(Yard::new().refuses(&[layer]).contains("65535"));
}

#[test]
fn whiteouts_take_away_what_lower_layers_brought() {
    let yard = Yard::new();
    let lower = Layer::new().file("a/one", b"1").file("a/two", b"2").file("b/deep/x", b"").file("c/old", b"");
    // Before or after its own files, an opaque directory keeps what its own layer wrote.
    let upper = Layer::new().file("a/.wh.one", b"").file(".wh.b", b"").file("c/new", b"").file("c/.wh..wh..opq", b"");
    let upper = upper.file(".wh..wh.plnk", b"").file("none/.wh.gone", b"");
    yard.import(&[lower.end(), upper.end()]).unwrap();
    assert_eq!(names(&yard.root()), [b"a", b"c"]);
    assert_eq!(names(&yard.root().join("a")), [b"two"]);
    assert_eq!(names(&yard.root().join("c")), [b"new"]);
}

#[test]
fn a_whiteout_cannot_reach_up() {
    for name in [".wh...", ".wh..", ".wh.", "a/.wh..."] {
        let told = Yard::new().refuses(&[Layer::new().file("a/x", b"").end(), Layer::new().file(name, b"").end()]);
        assert!(told.contains("whiteout of no name"), "{name}: {told}");
    }
}

#[test]
fn a_directory_and_a_file_may_change_places() {
    let yard = Yard::new();
    let lower = Layer::new().file("d/e/f", b"").file("g", b"").end();
    yard.import(&[lower, Layer::new().file("d", b"file").file("g/h", b"").end()]).expect_err("g is no directory");
    let lower = Layer::new().file("d/e/f", b"").file("g", b"").end();
    yard.import(&[lower, Layer::new().file("d", b"file").directory("g").file("g/h", b"").end()]).unwrap();
    assert_eq!(fs::read(yard.root().join("d")).unwrap(), b"file");
}

#[test]
fn a_blob_that_is_not_its_digest_is_refused() {
    let yard = Yard::new();
    let blobs = yard.layout(&[Layer::new().file("x", b"honest").end()], Packed::Zstd);
    let forged = zstd::encode_all(&Layer::new().file("x", b"forged").end()[..], 1).unwrap();
    fs::write(yard.path("layout/blobs/sha256").join(&blobs[0]), forged).unwrap();
    assert!(matches!(yard.bring(), Err(Error::WrongDigest { .. })));
    yard.is_whole(false);
    // The documents too: index.json alone is not named by a digest.
    yard.layout(&[Layer::new().end()], Packed::Tar);
    for entry in fs::read_dir(yard.path("layout/blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let honest = fs::read(&path).unwrap();
        fs::write(&path, [&honest[..], b" "].concat()).unwrap();
        assert!(matches!(yard.bring(), Err(Error::WrongDigest { .. })), "{path:?}");
        fs::write(&path, honest).unwrap();
    }
    yard.bring().unwrap();
}

#[test]
fn a_layer_cut_short_is_refused() {
    for packed in [Packed::Tar, Packed::Gzip, Packed::Zstd] {
        let yard = Yard::new();
        let blobs = yard.layout(&[Layer::new().file("x", &[7; 5000]).end()], packed);
        let path = yard.path("layout/blobs/sha256").join(&blobs[0]);
        let whole = fs::read(&path).unwrap();
        for length in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            yard.bring().unwrap_err();
            yard.is_whole(false);
        }
    }
}

#[test]
fn what_lies_behind_the_end_of_a_layer_is_hashed_too() {
    let yard = Yard::new();
    let blobs = yard.layout(&[Layer::new().file("x", b"").end()], Packed::Tar);
    let path = yard.path("layout/blobs/sha256").join(&blobs[0]);
    let mut more = fs::read(&path).unwrap();
    more.extend_from_slice(&[0; 4096]);
    fs::write(&path, more).unwrap();
    assert!(matches!(yard.bring(), Err(Error::WrongDigest { .. })));
}

#[test]
fn a_bomb_stops_at_the_limit() {
    for packed in [Packed::Gzip, Packed::Zstd] {
        let yard = Yard::new();
        yard.layout(&[Layer::new().file("zeros", &vec![0; 64 << 20]).end()], packed);
        assert!(matches!(yard.bring(), Err(Error::Limit { what: "bytes", .. })));
        yard.is_whole(false);
    }
    // Layers count together, and so do a tar's own empty blocks.
    let yard = Yard::new();
    let half = Layer::new().file("half", &vec![1; 600 << 10]).end();
    assert!(yard.refuses(&[half.clone(), half]).contains("--max-bytes"));
    let many = (0..1001).fold(Layer::new(), |layer, _| layer.directory("d"));
    assert!(yard.refuses(&[many.end()]).contains("--max-entries"));
}

#[test]
fn a_sparse_file_counts_as_what_it_unpacks_to() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..3].copy_from_slice(b"big");
    gnu.realsize.copy_from_slice(b"77777777777\0");
    gnu.sparse[0].offset.copy_from_slice(b"77777777777\0");
    gnu.sparse[0].numbytes.copy_from_slice(b"00000000000\0");
    header.set_cksum();
    let layer = [header.as_bytes().as_slice(), &[0; 1024]].concat();
    assert!(Yard::new().refuses(&[layer]).contains("--max-bytes"));
}

#[test]
fn long_and_strange_names_keep_their_bytes() {
    let yard = Yard::new();
    let long = ["x".repeat(150), "y".repeat(150)].join("/");
    let layer = Layer::new().long(long.as_bytes()).file("cut", b"long");
    let layer = layer.raw(b"\xff\xfe\n\x1b[31m", EntryType::Regular, 0o644, b"", b"strange");
    yard.import(&[layer.end()]).unwrap();
    assert_eq!(fs::read(yard.root().join(&long)).unwrap(), b"long");
    assert!(names(&yard.root()).contains(&b"\xff\xfe\n\x1b[31m".to_vec()));
    let yard = Yard::new();
    let told = yard.refuses(&[Layer::new().long(&[b'z'; 300]).file("cut", b"").end()]);
    assert!(told.contains("longer than 255"), "{told}");
    let deep = "d/".repeat(200);
    assert!(yard.refuses(&[Layer::new().long(deep.as_bytes()).directory("cut").end()]).contains("too deep"));
    let told = yard.refuses(&[Layer::new().raw(b"\x1b]0;\x07", EntryType::Fifo, 0, b"", b"").end()]);
    assert!(told.contains("\\x1b]0;\\x07") && !told.contains('\x1b'), "{told}");
}

#[test]
fn a_layout_lends_no_file_of_the_host() {
    let yard = Yard::new();
    let blobs = yard.layout(&[Layer::new().file("x", b"").end()], Packed::Tar);
    let blob = yard.path("layout/blobs/sha256").join(&blobs[0]);
    fs::rename(&blob, yard.path("layout/elsewhere")).unwrap();
    std::os::unix::fs::symlink(yard.path("layout/elsewhere"), &blob).unwrap();
    yard.bring().unwrap_err();
    yard.is_whole(false);
}

#[test]
fn an_archive_is_read_as_the_directory_is() {
    let yard = Yard::new();
    yard.layout(&[Layer::new().file("x", b"honest").end()], Packed::Gzip);
    let mut archive = tar::Builder::new(fs::File::create(yard.path("archive")).unwrap());
    archive.append_dir_all(".", yard.path("layout")).unwrap();
    archive.finish().unwrap();
    yard.store().import(&yard.path("archive"), &base(), yard.limits, &mut |_| {}).unwrap();
    assert_eq!(fs::read(yard.root().join("x")).unwrap(), b"honest");
    yard.is_whole(true);
}

#[test]
fn a_name_moves_and_an_image_goes_with_its_last_name() {
    let yard = Yard::new();
    let store = yard.store();
    assert!(store.list().unwrap().is_empty());
    assert!(matches!(store.resolve(&base()), Err(Error::Unknown(_))));
    let first = yard.import(&[Layer::new().file("x", b"1").end()]).unwrap();
    let other: Name = "other".parse().unwrap();
    store.import(&yard.path("layout"), &other, yard.limits, &mut |_| {}).unwrap();
    assert_eq!(store.remove(&base()).unwrap(), Removed::Name);
    yard.import(&[Layer::new().file("x", b"2").end()]).unwrap();
    assert_eq!(store.list().unwrap().len(), 2);
    let held = store.hold(&other).unwrap();
    assert_eq!(held.digest.to_string(), first.digest);
    assert!(matches!(store.remove(&other), Err(Error::InUse(_))));
    drop(held);
    assert_eq!(store.remove(&other).unwrap(), Removed::Image);
    assert_eq!(store.remove(&base()).unwrap(), Removed::Image);
    assert_eq!(names(&yard.path("state/images")), [b"names"]);
    for wrong in ["", ".hidden", "../base", "a/b", "Base", &"a".repeat(65)] {
        assert!(wrong.parse::<Name>().is_err(), "{wrong}");
    }
}

#[test]
fn an_import_broken_off_is_swept_by_the_next() {
    let yard = Yard::new();
    let leftover = yard.path("state/images/.unfinished-x");
    fs::create_dir_all(leftover.join("rootfs/etc")).unwrap();
    yard.import(&[Layer::new().end()]).unwrap();
    assert!(!leftover.exists());
}

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    let parts: [&[u8]; 11] =
        [b"..", b".", b"", b"a", b"b", b"way", b"victim", b".wh.a", b".wh..wh..opq", b".wh...", b"dev"];
    let part = prop::sample::select(parts.to_vec());
    proptest::collection::vec(part, 1..6).prop_map(|parts| parts.join(&b'/'))
}

fn any_entry() -> impl Strategy<Value = (u8, Vec<u8>, Vec<u8>)> {
    (prop_oneof![Just(b'0'), Just(b'1'), Just(b'2'), Just(b'5'), Just(b'3'), any::<u8>()], any_name(), any_name())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever entries say and whatever comes of it, nothing outside the image changes.
    #[test]
    fn no_sequence_of_entries_gets_out(
        layers in proptest::collection::vec(proptest::collection::vec(any_entry(), 1..12), 1..4),
    ) {
        let yard = Yard::new();
        let layers: Vec<_> = layers.into_iter().map(|entries| {
            entries.into_iter().fold(Layer::new(), |layer, (kind, name, link)| {
                layer.raw(&name, EntryType::new(kind), 0o7755, &link, if kind == b'0' { b"owned" } else { b"" })
            }).end()
        }).collect();
        let _ = yard.import(&layers);
    }

    /// Broken tars neither panic nor get out.
    #[test]
    fn no_bytes_get_out(at in 0_usize..4096, noise in proptest::collection::vec(any::<u8>(), 1..64)) {
        let yard = Yard::new();
        let layer = Layer::new().directory("a").symlink("a/way", "../../../victim").file("a/x", b"y");
        let mut layer = layer.hardlink("b", "a/x").end();
        let start = at % layer.len();
        for (byte, noise) in layer[start..].iter_mut().zip(noise) {
            *byte = noise;
        }
        let _ = yard.import(&[layer]);
    }
}

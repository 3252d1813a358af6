"""How much a picture, sound or video may ask of the machine, checked before it is decoded. All bounds stand here.

They are far above what cameras, phones and recorders make. A file of a few hundred bytes can claim far more.
"""

from __future__ import annotations

MEGAPIXEL = 1_000_000

_LARGEST_JPEG = 220 * MEGAPIXEL
PICTURE_PIXELS = {
    "JPEG": _LARGEST_JPEG,
    "MPO": _LARGEST_JPEG,
    "PNG": 178 * MEGAPIXEL,
    "GIF": 178 * MEGAPIXEL,
    "BMP": 178 * MEGAPIXEL,
    "TIFF": 110 * MEGAPIXEL,
    "HEIF": 104 * MEGAPIXEL,
    "AVIF": 104 * MEGAPIXEL,
    "WEBP": 64 * MEGAPIXEL,
}
"""By Pillow's name of the format. The largest photographs of phones are JPEGs of 200 megapixels, which are decoded at
half their size; cameras write 102 megapixels in HEIF and TIFF too. Decoders of the last four hold a picture several
times. More than 178 megapixels Pillow refuses by itself."""
LARGE_PICTURE_PIXELS = 89 * MEGAPIXEL
"""From here on a picture is made smaller, because the model sees 3 megapixels at most. Pillow warns from about here."""
JPEG_SCANS = 100
"""Of one picture; progressive ones have about ten. Each goes over the whole picture, however little there is in it. The
bound is libtiff's (`JPEG_MAX_ALLOWED_SCAN_NUMBER` in its tif_jpeg.c)."""
FRAME_PIXELS = 40 * MEGAPIXEL
"""Of a video's frame. 8K has 33 megapixels."""

SOUND_TRACKS = 32
"""Of one file. Tracks are compared by what they hold, so all of them are decoded for a while."""
BROKEN_PACKETS = 100_000
"""In a row: half an hour of sound, an hour of video. After so many nothing more is expected of a file."""
LONGEST_GAP_SECONDS = 6 * 3600
"""Without sound in the middle of a recording; a longer one is a wrong time stamp."""

OPEN_FILE_BYTES = 512 * 2**20
"""Of a file that is given open, and read into memory."""

DOWNLOAD_BYTES = 512 * 2**20
DOWNLOAD_WAIT_SECONDS = 30
"""Without a single byte; also for the whole answer up to the end of its header."""
DOWNLOAD_SECONDS = 15 * 60
"""For the whole of it."""
DOWNLOAD_BYTES_PER_SECOND = 4 * 2**10
"""On average, once `DOWNLOAD_WAIT_SECONDS` have passed: a slow line has more, a server that holds us up less."""

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "HEIF", "AVIF", "GIF", "BMP", "TIFF")
"""Pillow's names of the formats that pictures are read in. It knows 40 more; one of them runs Ghostscript."""

CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,apng,asf,au,avi,caf,dts,dv,eac3,flac,flv,gif,h261,h263,h264,hevc,ivf,loas,m4v,"
    "matroska,webm,mjpeg,mov,mp3,mp4,mpc,mpc8,mpeg,mpegts,mpegvideo,mxf,nistsphere,nut,obu,ogg,rm,tak,truehd,tta,voc,"
    "vvc,w64,wav,wtv,wv"
)
"""FFmpeg's names of the containers that sound and video are read from. Playlists, which open other files or wait for
them, are not among them."""

CODECS = (
    # Of sound: what phones, recorders, telephones, cameras and editors write.
    "aac,aac_fixed,aac_latm,ac3,ac3_fixed,alac,als,amrnb,amrwb,libopencore_amrnb,libopencore_amrwb,ape,cook,dca,"
    "dvaudio,eac3,flac,g722,g723_1,g726,g726le,g729,gsm,gsm_ms,ilbc,mace3,mace6,mlp,mp1,mp1float,mp2,mp2float,mp3,"
    "mp3float,mp3adu,mp3adufloat,mp3on4,mp3on4float,mpc7,mpc8,nellymoser,opus,libopus,qcelp,qdm2,qdmc,real_144,"
    "real_288,s302m,sipr,speex,tak,truehd,tta,vorbis,wavpack,wmalossless,wmapro,wmav1,wmav2,"
    "wmavoice,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,adpcm_swf,adpcm_yamaha,"
    "pcm_alaw,pcm_bluray,pcm_dvd,pcm_f16le,pcm_f24le,pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,pcm_mulaw,pcm_s16be,"
    "pcm_s16be_planar,pcm_s16le,pcm_s16le_planar,pcm_s24be,pcm_s24le,pcm_s24le_planar,pcm_s32be,pcm_s32le,"
    "pcm_s32le_planar,pcm_s64be,pcm_s64le,pcm_s8,pcm_s8_planar,pcm_u16be,pcm_u16le,pcm_u24be,pcm_u24le,pcm_u32be,"
    "pcm_u32le,pcm_u8,"
    # Of video: the same, and what old ones wrote.
    "apng,av1,libaom-av1,libdav1d,cfhd,cinepak,dnxhd,dvvideo,ffv1,ffvhuff,flv,gif,h261,h263,h263i,h263p,h264,hap,hevc,"
    "huffyuv,jpeg2000,mjpeg,mjpegb,mpeg1video,mpeg2video,mpeg4,mpegvideo,msmpeg4,msmpeg4v1,msmpeg4v2,"
    "msrle,msvideo1,png,prores,prores_raw,qtrle,rawvideo,rv10,rv20,rv30,rv40,svq1,svq3,theora,utvideo,v210,vc1,vp3,"
    "vp6,vp6a,vp6f,vp8,libvpx,vp9,libvpx-vp9,vvc,wmv1,wmv2,wmv3"
)
"""FFmpeg's names of the decoders that may be opened. It has 400 more: of games, of subtitles, of formats that nobody
has used for twenty years, where most of its holes are found."""

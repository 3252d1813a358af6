"""Files that name other files or addresses, or have their reader wait: none of them may be opened."""

from __future__ import annotations

PLAYLISTS = {
    "wait.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:99999\n#EXTINF:99999,\na.ts\n#EXTINF:99999,\nb.ts\n",
    "file.m3u8": b"#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "http.m3u8": b"#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    "master.m3u8": b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nconcat:/etc/passwd|/etc/hosts\n",
    "absolute.txt": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "subfile.txt": b"ffconcat version 1.0\nfile 'subfile,,start,0,end,99,,:/etc/passwd'\n",
    "data.txt": b"ffconcat version 1.0\nfile 'data:audio/wav;base64,UklGRg=='\n",
    "concat.wav": b"concat:/etc/passwd|/etc/hosts",
    "session.sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "parts.mpd": (
        b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>"
        b"<MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='dynamic'><Period><AdaptationSet><Representation>"
        b"<BaseURL>&e;</BaseURL></Representation></AdaptationSet></Period></MPD>"
    ),
    "laughs.mpd": b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a '"
    + b"ha" * 99
    + b"'>"
    + b"".join(b"<!ENTITY %c '&%c;&%c;&%c;&%c;'>" % (98 + n, *[97 + n] * 4) for n in range(20))
    + b"]><MPD>&u;</MPD>",
    "list.pls": b"[playlist]\nFile1=/etc/passwd\nNumberOfEntries=1\n",
    "list.asx": b"<asx version='3.0'><entry><ref href='file:///etc/passwd'/></entry></asx>",
    "list.cue": b'FILE "/etc/passwd" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
    "script.avs": b'Import("/etc/passwd")\n',
    "graph.lavfi": b"amovie=/etc/passwd",
    "subtitles.ass": b"[Script Info]\n[Events]\n" + b"Dialogue: 0,0:00:00.00,9:00:00.00,,,0,0,0,,{\\fn}\n" * 99_999,
    "words.srt": b"1\n00:00:00,000 --> 99:00:00,000\nx\n\n" * 99_999,
}
